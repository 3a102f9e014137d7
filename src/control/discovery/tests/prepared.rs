//! What a configuration asks that is to take effect.

use super::*;

#[test]
fn what_another_configuration_asks_is_known_before_it_takes_effect() {
    run(async {
        let server = Server::start().await;
        server.say("a.test.", Reply::addresses(0, &["10.0.0.1"]));
        server.say("b.test.", Reply::addresses(0, &["10.0.0.2"]));
        let [old, new] = ["a.test:80", "b.test:80"].map(|name| hosts(&[name], &[server.address]));
        let mut discoveries = Discoveries::at_pace(FAST);
        discoveries.begin_with(&old).await;
        assert!(discoveries.knows(&old) && !discoveries.knows(&new));
        discoveries.prepare(&new);
        until(&mut discoveries, |d| d.knows(&new)).await;
        assert_eq!(resolved(&discoveries, &old), ["10.0.0.1:80"]);
        discoveries.follow(&new);
        discoveries.end_prepared();
        assert_eq!(resolved(&discoveries, &new), ["10.0.0.2:80"]);
        // It does not take effect.
        discoveries.prepare(&old);
        discoveries.end_prepared();
        assert!(discoveries.knows(&new) && !discoveries.knows(&old));
        assert_eq!(discoveries.followed.len(), 1);
    });
}
