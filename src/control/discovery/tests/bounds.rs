//! The number of queries under way is bounded, however many are needed.

use super::*;

#[test]
fn looking_again_begins_no_second_round_and_no_second_look() {
    run(async {
        let server = Server::start().await;
        server.say("a.test.", Reply::Silence);
        let mut both = config(name("a.test"), &[server.address]);
        let of_file = Pool {
            discovery: Some(Discovery::File("/absent".into())),
            ..Pool::of("file", Vec::new())
        };
        both.pools.push(of_file.into());
        let mut discoveries = Discoveries::at_pace(FAST);
        discoveries.follow(&both);
        let began = discoveries.tasks;
        for _ in 0..1_000 {
            discoveries.look_again();
            tokio::task::yield_now().await;
        }
        assert_eq!(discoveries.tasks, began);
        // The first server has not timed out yet.
        assert_eq!(server.asked("a.test."), 2);
    });
}

#[test]
fn questions_under_way_are_bounded_and_all_names_are_asked() {
    run(async {
        let server = Server::start().await;
        let names: Vec<_> = (0..300).map(|n| format!("n{n}.test:80")).collect();
        let asked = |server: &Server| {
            let all = (0..300).map(|n| server.asked(&format!("n{n}.test.")));
            all.filter(|asked| *asked > 0).count()
        };
        for n in 0..300 {
            server.say(&format!("n{n}.test."), Reply::Silence);
        }
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let config = hosts(&names, &[server.address]);
        let mut discoveries = Discoveries::at_pace(FAST);
        discoveries.begin_with(&config).await;
        // Two queries of each name.
        assert_eq!(asked(&server), QUESTIONS_MAX / 2);
        for n in 0..300 {
            server.say(&format!("n{n}.test."), Reply::addresses(60, &["10.0.0.1"]));
        }
        let mut discoveries = Discoveries::at_pace(FAST);
        discoveries.follow(&config);
        until(&mut discoveries, Discoveries::knows_hosts).await;
        assert_eq!(asked(&server), 300);
    });
}
