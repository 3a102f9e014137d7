//! What a session without an answer shows of its backend. Nothing that a client does may count as a
//! failure of the backend, because failures eject it.

use super::*;
use crate::time::MS;

/// The two ways in which a backend leaves: in order, and by a reset.
const LEAVES: [Result<(), Errno>; 2] = [Ok(()), Err(Errno::CONNRESET)];

fn fault(script: &mut Script, leaves: Result<(), Errno>) -> Option<Unanswered> {
    script.on_event(Event::RecvEnded(Backend, leaves));
    if leaves.is_ok() && script.session.reason().is_none() {
        script.on_event(Event::RecvEnded(Client, Ok(())));
    }
    script.summary().fault
}

#[test]
fn a_backend_that_leaves_before_its_client_did_anything_has_failed() {
    for leaves in LEAVES {
        let mut script = Script::connected();
        assert_eq!(fault(&mut script, leaves), Some(Unanswered::Failed));
    }
}

#[test]
fn a_backend_that_leaves_after_a_request_may_have_been_asked_to() {
    for leaves in LEAVES {
        let mut script = Script::connected();
        script.receives(Client, 10);
        let mut waits = Script::connected();
        waits.receives(Client, 10);
        script.sent(Backend, 10);
        assert_eq!(fault(&mut script, leaves), Some(Unanswered::Unclear));
        if leaves.is_err() {
            assert_eq!(fault(&mut waits, leaves), Some(Unanswered::Unclear));
        }
    }
}

#[test]
fn a_backend_that_leaves_after_its_clients_end_has_not_failed() {
    for (leaves, expected) in LEAVES.into_iter().zip([None, Some(Unanswered::Unclear)]) {
        let mut script = Script::connected();
        script.on_event(Event::RecvEnded(Client, Ok(())));
        assert_eq!(fault(&mut script, leaves), expected);
    }
}

/// A server has a time limit of its own for clients that say nothing.
#[test]
fn a_backend_that_leaves_a_silent_client_after_a_while_has_not_failed() {
    for (leaves, expected) in LEAVES.into_iter().zip([None, Some(Unanswered::Unclear)]) {
        let mut script = Script::connected();
        script.passes(1_000 * MS);
        assert_eq!(fault(&mut script, leaves), expected);
    }
}

#[test]
fn a_backend_that_has_answered_has_not_failed() {
    for leaves in LEAVES {
        let mut script = Script::connected();
        script.receives(Backend, 1);
        script.sent(Client, 1);
        assert_eq!(fault(&mut script, leaves), None);
    }
}

#[test]
fn what_other_ends_leave_unanswered_shows_nothing() {
    for reason in [CloseReason::Killed, CloseReason::IdleTimeout] {
        let mut script = Script::connected();
        script.receives(Client, 10);
        script.cx(|session, cx| session.close(reason, cx));
        assert_eq!(script.summary().fault, None);
    }
}
