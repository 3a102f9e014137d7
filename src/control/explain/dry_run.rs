//! Where a client would go now, and which listeners would refuse it.

use std::sync::Arc;

use crate::admin::Reply;
use crate::admin::model::{DryRunStatus, WorkerChoice};
use crate::config::SNI_MEMBER;
use crate::control::aside;
use crate::control::calls::silent;
use crate::control::replies::Replies;
use crate::select::{Considered, Keys, Plan, Request, Seat, Selector};
use crate::sys;
use crate::wording::plural;
use crate::worker::{Preview, PreviewQuestion};

use super::listeners::Verdicts;
use super::{NameSource, chosen, considered_numbers, decision, keys};

/// Answers with where a client would go; by the pool itself where no listener has it.
pub(in crate::control) async fn preview(
    asked: Replies<Vec<Preview>>,
    question: PreviewQuestion,
    known: NameSource,
    reply: Reply<Result<DryRunStatus, String>>,
) {
    let answers = asked.gather().await;
    if let Some(why) = silent(&answers) {
        return drop(reply.send(Err(format!("cannot tell: {why}: try again"))));
    }
    let mut previews: Vec<_> = answers.all.into_iter().flatten().collect();
    previews.sort_by_key(|its| (its.worker, its.listener.id));
    drop(aside::compute(move || {
        drop(reply.send(dry_run(&previews, &question, &known)));
    }));
}

fn dry_run(
    previews: &[Preview],
    question: &PreviewQuestion,
    known: &NameSource,
) -> Result<DryRunStatus, String> {
    let mut says = Vec::new();
    let verdicts = Verdicts::new(&known.snapshot, question, sys::monotonic());
    let mut let_in = previews
        .iter()
        .filter(|its| !verdicts.refuses(its.listener.id));
    let led = |its: &&Preview| !verdicts.leads_elsewhere(its.listener.id);
    let first = let_in.clone().find(led).or_else(|| let_in.next());
    let (plan, keys_of, first) = match first.or_else(|| previews.first()) {
        Some(its) => (&its.plan, its.keys, its.considered),
        None => {
            let mut plans = known.snapshot.pools.iter();
            let plan = plans.find(|plan| plan.pool().name == question.pool);
            let plan = plan.ok_or_else(|| format!("the pool `{}` was removed", question.pool))?;
            says.push("no listener sends clients to this pool".to_owned());
            let (keys, considered) = without_worker(plan, question);
            (plan, keys, considered)
        }
    };
    let pool = plan.pool();
    let numbers = previews
        .iter()
        .flat_map(|its| considered_numbers(&its.considered));
    let numbers = numbers.chain(considered_numbers(&first)).collect();
    let names = known.past.resolve(&known.snapshot, &numbers);
    let workers = previews.iter().map(|its| WorkerChoice {
        worker: its.worker,
        listener: its.listener.name.clone(),
        backend: chosen(&its.considered, &names).map(|label| label.name),
    });
    let workers: Vec<_> = workers.collect();
    if workers.iter().any(|one| one.backend != workers[0].backend) {
        let why = "workers decide differently, each by its own turn or chance; the kernel picks \
                   the worker of a client";
        says.push(why.to_owned());
    }
    let waiting = u64::from(pool.queue.len());
    if waiting > 0 {
        let clients = plural(waiting, "client");
        says.push(format!(
            "the queue of the pool has {clients}: this one would wait too"
        ));
    }
    let effect = match verdicts.have_routes() {
        true => "counts for routes only",
        false => "changes nothing",
    };
    says.extend(without_key(plan, question, effect));
    says.extend(verdicts.says());
    Ok(DryRunStatus {
        pool: pool.name.clone(),
        strategy: pool.config.selects_by(),
        client: question.client.ip().to_string(),
        keys: keys(plan.key_names(), keys_of),
        refused: verdicts.all_refuse(),
        elsewhere: verdicts.all_lead_elsewhere(),
        decision: decision(&first, &names),
        workers,
        listeners: verdicts.shown(),
        says,
    })
}

/// What of a question no key of the pool looks at, and so what effect it has.
fn without_key(plan: &Plan, question: &PreviewQuestion, effect: &str) -> Vec<String> {
    let has = |kinds: &[&str]| {
        let mut known = plan.key_names().into_iter().flatten();
        known.any(|kind| {
            let kind = if kind == SNI_MEMBER { "sni" } else { kind };
            kinds.contains(&kind)
        })
    };
    let names_host = |target: &str| !target.starts_with('/');
    let url_kinds = match question.target.as_deref().is_some_and(names_host) {
        true => HOST_KINDS.iter().chain(PATH_KINDS).copied().collect(),
        false => PATH_KINDS.to_vec(),
    };
    let given = [
        ("sni", question.host.is_some(), HOST_KINDS.to_vec()),
        ("url", question.target.is_some(), url_kinds),
    ];
    let idle = given
        .into_iter()
        .filter(|(_, given, kinds)| *given && !has(kinds));
    let each = idle.map(|(what, _, kinds)| {
        let kinds = kinds.join(" or ");
        format!("`{what}` {effect}: no key of the pool is {kinds}")
    });
    each.collect()
}

/// What a worker without a past would decide.
fn without_worker(plan: &Arc<Plan>, question: &PreviewQuestion) -> (Keys, Considered) {
    let keys = question.keys_by_host(plan);
    let seat = Seat {
        worker: 0,
        of: 1,
        pool: 0,
        seed: 0,
    };
    let request = Request {
        now: sys::monotonic(),
        keys,
        tried: &[],
    };
    let selector = Selector::new(Arc::clone(plan), seat);
    (keys, selector.preview(&request))
}

/// Keys that look at the host that a client names.
const HOST_KINDS: &[&str] = &["sni", "http_host"];
/// Keys that look at the path of a request.
const PATH_KINDS: &[&str] = &["http_path"];
