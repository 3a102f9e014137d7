//! `mahoraga top`: a live view of the balancer, redrawn for each answer and each key.

mod keys;
mod model;
mod view;

use std::io::{self, IsTerminal};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use hyper::Method;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, KeyEvent, KeyEventKind};
use serde::Serialize;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};

use super::args::TopArgs;
use super::client::{Client, ClientError, path, query};
use super::events::Stream;
use super::find::BackendName;
use super::print;
use super::table::Paint;
use crate::admin::model::{
    BalancerEvent, BanFilter, Changed, HistogramStatus, PoolStatus, SessionFilter, Status,
};
use crate::config::AdminState;
use crate::sys;
use keys::{Controls, Proposal, Step, View};
use model::{Answers, Listed, Point, TopModel};

/// Draws until the user quits. A balancer that can't be reached at the start is an error; if it is
/// lost later, this waits for it.
pub(super) async fn top(args: &TopArgs) -> Result<(), ClientError> {
    let client = Arc::new(Client::new(&args.options)?);
    if args.options.json {
        return lines(&client, args.interval).await;
    }
    if !io::stdout().is_terminal() {
        let why = "top draws on a terminal: without one, use top --json or `mahoraga status`";
        return Err(ClientError::Usage(why.to_owned()));
    }
    let mut model = TopModel::default();
    model.take(sample(&client, View::default()).await?);
    let (send, mut messages) = mpsc::channel(MESSAGES);
    let (shown, view) = watch::channel(View::default());
    let sampling = sample_each(Arc::clone(&client), args.interval, view, send.clone());
    tokio::spawn(sampling);
    tokio::spawn(follow_events(Arc::clone(&client), send.clone()));
    tokio::spawn(until_signalled(send.clone())?);
    let mut screen = Screen::open()?;
    let keys = send.clone();
    thread::Builder::new()
        .name("keys".to_owned())
        .spawn(move || read_keys(&keys))?;
    let colour = Paint::of_stdout().0;
    let mut controls = Controls::default();
    loop {
        screen
            .0
            .draw(|frame| view::draw(frame, &model, &controls, colour))?;
        let Some(message) = messages.recv().await else {
            return Ok(());
        };
        match on_message(message, &mut model, &mut controls)? {
            Step::Stay => {}
            Step::Quit => return Ok(()),
            Step::Show => drop(shown.send(controls.view)),
            Step::Propose(to) => controls.proposal = proposal(&model, &controls, to),
            Step::Confirm => {
                if let Some(proposal) = controls.proposal.take() {
                    tokio::spawn(change(Arc::clone(&client), proposal, send.clone()));
                }
            }
        }
    }
}

/// The change of the backend that is marked, if there is one.
fn proposal(model: &TopModel, controls: &Controls, to: AdminState) -> Option<Proposal> {
    let rows = model.rows(controls.order, &controls.filter);
    let marked = rows.get(controls.marked.min(rows.len().saturating_sub(1)))?;
    Some(Proposal {
        backend: BackendName::of(marked.backend),
        connections: marked.backend.connections,
        to,
    })
}

/// Makes a change that the user has said yes to, and reports what became of it.
async fn change(client: Arc<Client>, proposal: Proposal, to: mpsc::Sender<Message>) {
    let (path, name) = (proposal.backend.path(), proposal.backend.written());
    let body = json!({ "state": proposal.to });
    let changed = client.send::<Changed>(Method::PATCH, &path, &body).await;
    let notice = match changed {
        Ok(changed) if changed.changed => {
            let state = proposal.to.as_str();
            format!("{name}: {state} (snapshot {})", changed.snapshot)
        }
        Ok(_) => format!("{name}: nothing has changed"),
        Err(error) => format!("{name} is unchanged: {error}"),
    };
    // The screen may be closed.
    let _ = to.send(Message::Changed(notice)).await;
}

/// Whatever changes the screen.
#[derive(Debug)]
enum Message {
    /// The balancer answered.
    Sampled(Box<Answers>),
    /// The balancer did not answer: why.
    Unreachable(String),
    /// The stream of events starts again, with past ones.
    EventsBegin,
    /// An event.
    Event(BalancerEvent),
    /// The user pressed a key.
    Pressed(KeyEvent),
    /// What became of a change.
    Changed(String),
    /// The terminal has another size.
    Resized,
    /// A signal ends the program.
    Signalled,
    /// The keys can't be read any more.
    KeysFailed(io::Error),
}

fn on_message(
    message: Message,
    model: &mut TopModel,
    controls: &mut Controls,
) -> Result<Step, ClientError> {
    match message {
        Message::Pressed(key) => return Ok(controls.on_key(key)),
        Message::Signalled => return Ok(Step::Quit),
        Message::KeysFailed(error) => return Err(error.into()),
        // The first sample after the pause covers this time.
        Message::Sampled(_) if controls.paused => model.set_reachable(),
        Message::Sampled(sample) => {
            model.take(*sample);
        }
        Message::Unreachable(why) => model.set_unreachable(why),
        Message::EventsBegin => model.clear_events(),
        Message::Event(event) => model.push_event(event),
        Message::Changed(notice) => controls.notice = Some(notice),
        Message::Resized => {}
    }
    Ok(Step::Stay)
}

async fn sample(client: &Client, view: View) -> Result<Answers, ClientError> {
    let status: Status = client.get(&path(&["status"])).await?;
    let pools: Vec<PoolStatus> = client.get(&path(&["pools"])).await?;
    let histograms: Vec<HistogramStatus> = client.get(&path(&["histograms"])).await?;
    let listed = match view {
        View::Backends | View::Pools => Listed::Nothing,
        View::Listeners => Listed::Listeners(client.get(&path(&["listeners"])).await?),
        View::Sessions => {
            let filter = SessionFilter {
                limit: Some(LISTED),
                ..SessionFilter::default()
            };
            let sessions = path(&["sessions"]) + &query(&filter);
            Listed::Sessions(client.get(&sessions).await?)
        }
        View::Bans => {
            let filter = BanFilter {
                limit: Some(LISTED),
                ..BanFilter::default()
            };
            Listed::Bans(client.get(&(path(&["bans"]) + &query(&filter))).await?)
        }
    };
    Ok(Answers {
        at: sys::monotonic(),
        status,
        pools,
        histograms,
        listed,
    })
}

/// Takes a sample each interval, and when the view changes, and goes on after failures.
async fn sample_each(
    client: Arc<Client>,
    every: Duration,
    mut view: watch::Receiver<View>,
    to: mpsc::Sender<Message>,
) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is due at once, and its sample is taken already.
    ticks.tick().await;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            changed = view.changed() => if changed.is_err() {
                return;
            },
        }
        let shown = *view.borrow_and_update();
        let message = match sample(&client, shown).await {
            Ok(sample) => Message::Sampled(Box::new(sample)),
            Err(error) => Message::Unreachable(error.to_string()),
        };
        if to.send(message).await.is_err() {
            return;
        }
    }
}

/// Follows the events, and starts again when the stream breaks. The samples report why.
async fn follow_events(client: Arc<Client>, to: mpsc::Sender<Message>) {
    loop {
        if let Ok(mut stream) = Stream::open(&client, RECENT).await {
            if to.send(Message::EventsBegin).await.is_err() {
                return;
            }
            while let Ok(Some(event)) = stream.next().await {
                if to.send(Message::Event(event)).await.is_err() {
                    return;
                }
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Waits for a signal that ends the program, so that it restores the terminal first.
fn until_signalled(
    to: mpsc::Sender<Message>,
) -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
            _ = interrupt.recv() => {}
        }
        // The receiver may have ended already.
        let _ = to.send(Message::Signalled).await;
    })
}

/// Reads keys, which blocks: so it has a thread of its own, which ends soon after the screen.
fn read_keys(to: &mpsc::Sender<Message>) {
    while !to.is_closed() {
        let read = match event::poll(KEY_POLL) {
            Ok(true) => event::read(),
            Ok(false) => continue,
            Err(error) => Err(error),
        };
        let message = match read {
            Ok(event::Event::Key(key)) if key.kind != KeyEventKind::Release => {
                Message::Pressed(key)
            }
            Ok(event::Event::Resize(..)) => Message::Resized,
            Ok(_) => continue,
            Err(error) => Message::KeysFailed(error),
        };
        let ends = matches!(message, Message::KeysFailed(_));
        if to.blocking_send(message).is_err() || ends {
            return;
        }
    }
}

/// The whole terminal. Dropping this restores it, and so does a panic.
struct Screen(DefaultTerminal);

impl Screen {
    fn open() -> io::Result<Self> {
        ratatui::try_init().map(Self).inspect_err(|_| {
            // The initialization may be half done.
            let _ = ratatui::try_restore();
        })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // The terminal may be gone.
        let _ = ratatui::try_restore();
    }
}

/// What `--json` writes for each interval.
#[derive(Serialize)]
struct Json<'a> {
    #[serde(flatten)]
    rates: Point,
    status: &'a Status,
    pools: &'a [PoolStatus],
    histograms: &'a [HistogramStatus],
}

/// Prints a line of JSON for each interval, until the reader is gone.
async fn lines(client: &Client, every: Duration) -> Result<(), ClientError> {
    let mut model = TopModel::default();
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let rates = model.take(sample(client, View::default()).await?);
        let (Some(rates), Some(sample)) = (rates, model.last()) else {
            continue;
        };
        let line = Json {
            rates,
            status: &sample.status,
            pools: &sample.pools,
            histograms: &sample.histograms,
        };
        let line = serde_json::to_string(&line).expect("the model has text for keys alone");
        if let ControlFlow::Break(()) = print(&(line + "\n")) {
            return Ok(());
        }
    }
}

/// Messages that wait to be drawn. Beyond that their senders wait.
const MESSAGES: usize = 64;
/// Sessions and bans that are listed at most: more than a screen shows.
const LISTED: u32 = 200;
/// Past events that are shown at first.
const RECENT: u32 = 50;
/// The pause before another attempt to follow the events.
const RETRY: Duration = Duration::from_secs(1);
/// The longest that the thread of the keys outlives the screen.
const KEY_POLL: Duration = Duration::from_millis(200);
