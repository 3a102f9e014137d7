//! `mahoraga top`: all at a glance, drawn anew for each answer and each key.

mod keys;
mod model;
mod view;

use std::io::{self, IsTerminal};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, KeyEvent, KeyEventKind};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::args::TopArgs;
use super::client::{Client, ClientError, path};
use super::events::Stream;
use super::print;
use super::table::Paint;
use crate::admin::model::{Event, HistogramStatus, PoolStatus, Status};
use crate::sys;
use keys::{Controls, Step};
use model::{Model, Point, Sample};

/// Draws until the user quits. A balancer that can't be asked at the start is an error; one that
/// is lost later on is waited for.
pub(super) async fn top(args: &TopArgs) -> Result<(), ClientError> {
    let client = Arc::new(Client::new(&args.asked)?);
    if args.asked.json {
        return lines(&client, args.interval).await;
    }
    if !io::stdout().is_terminal() {
        let why = "top draws on a terminal: without one, use top --json or `mahoraga status`";
        return Err(ClientError::Usage(why.to_owned()));
    }
    let mut model = Model::default();
    model.take(sample(&client).await?);
    let (send, mut messages) = mpsc::channel(MESSAGES);
    tokio::spawn(watch(Arc::clone(&client), args.interval, send.clone()));
    tokio::spawn(listen(client, send.clone()));
    tokio::spawn(until_signalled(send.clone())?);
    let mut screen = Screen::open()?;
    thread::Builder::new()
        .name("keys".to_owned())
        .spawn(move || read_keys(&send))?;
    let colour = Paint::of_stdout().0;
    let mut controls = Controls::default();
    loop {
        screen
            .0
            .draw(|frame| view::draw(frame, &model, &controls, colour))?;
        let Some(message) = messages.recv().await else {
            return Ok(());
        };
        let step = on_message(message, &mut model, &mut controls)?;
        if step == Step::Quit {
            return Ok(());
        }
    }
}

/// What changes what is drawn.
#[derive(Debug)]
enum Message {
    /// The balancer answered.
    Sampled(Box<Sample>),
    /// It did not.
    Lost(String),
    /// The events are told from some time ago on.
    EventsBegin,
    /// One of them.
    Happened(Event),
    /// The user pressed a key.
    Pressed(KeyEvent),
    /// The terminal has another size.
    Resized,
    /// A signal said so.
    Ended,
    /// There are no more keys to be had.
    Deaf(io::Error),
}

fn on_message(
    message: Message,
    model: &mut Model,
    controls: &mut Controls,
) -> Result<Step, ClientError> {
    match message {
        Message::Pressed(key) => return Ok(controls.on_key(key)),
        Message::Ended => return Ok(Step::Quit),
        Message::Deaf(error) => return Err(error.into()),
        // The next one after a pause tells of all of it.
        Message::Sampled(_) if controls.paused => model.find(),
        Message::Sampled(sample) => {
            model.take(*sample);
        }
        Message::Lost(why) => model.lose(why),
        Message::EventsBegin => model.forget_events(),
        Message::Happened(event) => model.happen(event),
        Message::Resized => {}
    }
    Ok(Step::Stay)
}

async fn sample(client: &Client) -> Result<Sample, ClientError> {
    let status: Status = client.get(&path(&["status"])).await?;
    let pools: Vec<PoolStatus> = client.get(&path(&["pools"])).await?;
    let histograms: Vec<HistogramStatus> = client.get(&path(&["histograms"])).await?;
    Ok(Sample {
        at: sys::monotonic(),
        status,
        pools,
        histograms,
    })
}

/// Asks each interval, whatever comes of it.
async fn watch(client: Arc<Client>, every: Duration, to: mpsc::Sender<Message>) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first is at once, and was asked before.
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let message = match sample(&client).await {
            Ok(sample) => Message::Sampled(Box::new(sample)),
            Err(error) => Message::Lost(error.to_string()),
        };
        if to.send(message).await.is_err() {
            return;
        }
    }
}

/// Follows the events, and begins again when they break off. Why they did is told by who asks.
async fn listen(client: Arc<Client>, to: mpsc::Sender<Message>) {
    loop {
        if let Ok(mut stream) = Stream::open(&client, RECENT).await {
            if to.send(Message::EventsBegin).await.is_err() {
                return;
            }
            while let Ok(Some(event)) = stream.next().await {
                if to.send(Message::Happened(event)).await.is_err() {
                    return;
                }
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// The terminal is to be left as it was, also when somebody else ends this.
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
        // Who is gone needs no telling.
        let _ = to.send(Message::Ended).await;
    })
}

/// Reading keys blocks: it has a thread of its own, which ends soon after the screen does.
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
            Err(error) => Message::Deaf(error),
        };
        let ends = matches!(message, Message::Deaf(_));
        if to.blocking_send(message).is_err() || ends {
            return;
        }
    }
}

/// The whole terminal, until this is dropped; a panic gives it back too.
struct Screen(DefaultTerminal);

impl Screen {
    fn open() -> io::Result<Self> {
        ratatui::try_init().map(Self).inspect_err(|_| {
            // Half of it may have been done.
            let _ = ratatui::try_restore();
        })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
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

/// A line of JSON for each interval, until nobody reads.
async fn lines(client: &Client, every: Duration) -> Result<(), ClientError> {
    let mut model = Model::default();
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let rates = model.take(sample(client).await?);
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

/// Messages that wait to be drawn; who sends more waits.
const MESSAGES: usize = 64;
/// Events to begin with.
const RECENT: u32 = 50;
/// Between two tries to follow the events.
const RETRY: Duration = Duration::from_secs(1);
/// How long the thread of the keys outlives the screen at most.
const KEY_POLL: Duration = Duration::from_millis(200);
