//! What a configuration asks that is to take effect.

use super::*;

fn knows(discoveries: &Discoveries, config: &Config) -> bool {
    let mut all = Question::all(config).into_iter();
    all.all(|question| {
        let followed = discoveries.followed.get(&question);
        followed.is_some_and(|its| its.state.is_known())
    })
}

#[test]
fn what_another_configuration_asks_is_known_before_it_takes_effect() {
    run(async {
        let server = Server::start().await;
        server.say("a.test.", Reply::addresses(0, &["10.0.0.1"]));
        server.say("b.test.", Reply::addresses(0, &["10.0.0.2"]));
        let [old, new] = ["a.test:80", "b.test:80"].map(|name| hosts(&[name], &[server.address]));
        let mut discoveries = Discoveries::at_pace(FAST);
        discoveries.begin_with(&old).await;
        assert!(knows(&discoveries, &old) && !knows(&discoveries, &new));
        let mut awaited = discoveries.prepare(&new);
        assert!(!discoveries.has_answers(&mut awaited, &new));
        until(&mut discoveries, |d| knows(d, &new)).await;
        assert!(discoveries.has_answers(&mut awaited, &new));
        assert_eq!(resolved(&discoveries, &old), ["10.0.0.1:80"]);
        discoveries.follow(&new);
        discoveries.end_prepared();
        assert_eq!(resolved(&discoveries, &new), ["10.0.0.2:80"]);
        // It does not take effect.
        discoveries.prepare(&old);
        discoveries.end_prepared();
        assert!(knows(&discoveries, &new) && !knows(&discoveries, &old));
        assert_eq!(discoveries.followed.len(), 1);
    });
}
