// What the page knows: the last answers, rates between them, points over time, and events. All of
// it is bounded, however long the page stays open.

import { ApiError, follow, get, has, roleNow } from './api.js';
import { ms } from './format.js';

export const QUANTILES = ['p50', 'p99', 'p999'];
const KINDS = ['connect', 'first_byte', 'session'];
/** A quarter of an hour. */
const POINTS_MAX = 900;
const EVENTS_MAX = 500;
const MINUTE_MS = 60_000;
/** Rates are over so many ms: shorter ones jump. */
const RATE_MS = 5_000;
/** More backends make long answers. */
const MANY = 50;

/** What the views read. */
export const store = {
  status: null,
  pools: [],
  listeners: [],
  /** Columns of equal length: a time in seconds, and what was measured. */
  points: columns(),
  /** Rates of the last seconds, of all. */
  rates: null,
  /** The newest is last. */
  events: [],
  /** What failed last: a sentence; empty while the balancer answers. */
  unreachable: '',
  /** Since when it does not answer, in ms. */
  unreachableSince: 0,
  /** `live`, `connecting` or a sentence. */
  stream: 'connecting',
  /** Per backend: counters of the last minute. */
  backends: new Map(),
  listenerRates: new Map(),
  workers: new Map(),
};

const subscribers = new Set();

/** Calls back after each change. Answers with a function that ends it. */
export function subscribe(callback) {
  subscribers.add(callback);
  return () => subscribers.delete(callback);
}

function publish(what) {
  subscribers.forEach((callback) => callback(what));
}

function columns() {
  return Object.fromEntries(names().map((name) => [name, []]));
}

function names() {
  const times = KINDS.flatMap((kind) => QUANTILES.map((quantile) => `${kind}.${quantile}`));
  return ['time', 'up', 'down', 'connections', 'accepted', 'refused', 'failed', 'queued', ...times];
}

/** Close reasons of clients that a rule or a limit refused. */
export const REFUSALS = [
  'banned', 'access_denied', 'source_connections', 'source_rate', 'listener_rate', 'global_rate',
  'overloaded', 'memory_full', 'no_route', 'proxy_untrusted', 'proxy_header',
  'proxy_header_timeout', 'proxy_headers_full', 'tls_handshakes_full',
];

/** Close reasons of sessions that failed for want of a backend. */
export const FAILURES = [
  'backend_down', 'connect_failed', 'connect_timeout', 'tls_refused', 'no_backend', 'pool_full',
  'queue_timeout', 'no_resources', 'no_local_port', 'no_source_address', 'not_transparent',
];

const total = (closed, reasons) => reasons.reduce((sum, name) => sum + (closed[name] ?? 0), 0);

/** The key of a backend. */
export const keyOf = (backend) => JSON.stringify([backend.pool, backend.name]);

/** Counters over the last minute: a list of times and values, the oldest first. */
class Minute {
  samples = [];

  add(at, values) {
    const { samples } = this;
    const last = samples.at(-1);
    // A counter that goes back belongs to another one of that name, and a clock may be set back.
    const isOther = (its) => its.at >= at || Object.keys(values).some((name) => values[name] < its.values[name]);
    if (last && isOther(last)) samples.length = 0;
    samples.push({ at, values });
    while (samples.length > 2 && samples[0].at < at - MINUTE_MS) samples.shift();
  }

  /** By how much a counter rose within the last `window` ms. */
  rise(name, window = MINUTE_MS) {
    const last = this.samples.at(-1);
    const first = this.first(window);
    return first ? last.values[name] - first.values[name] : null;
  }

  /** How fast it rises, per second. */
  rate(name, window = RATE_MS) {
    const last = this.samples.at(-1);
    const first = this.first(window);
    return first ? ((last.values[name] - first.values[name]) * 1000) / (last.at - first.at) : null;
  }

  first(window) {
    const last = this.samples.at(-1);
    const first = this.samples.find((sample) => sample.at >= last.at - window);
    return first && first !== last ? first : (this.samples.at(-2) ?? null);
  }
}

const all = new Minute();
let run = '';

/** Takes the answers of one time, in ms. */
export function take(status, pools, listeners, at) {
  const its = `${status.pid} ${status.started_at}`;
  if (its !== run) {
    // Counters of another process begin at 0.
    run = its;
    all.samples.length = 0;
    [store.backends, store.listenerRates, store.workers].forEach((map) => map.clear());
  }
  Object.assign(store, { status, pools, listeners });
  const { closed } = status;
  // The first answer has no rates: between history and those that follow it would be a gap.
  const isFirst = all.samples.length === 0 && store.points.time.length > 0;
  all.add(at, {
    accepted: status.accepted,
    up: status.bytes_up,
    down: status.bytes_down,
    refused: total(closed, REFUSALS),
    failed: total(closed, FAILURES),
    overloaded: total(closed, ['overloaded', 'memory_full']),
  });
  const rate = (name) => all.rate(name);
  store.rates = {
    accepted: rate('accepted'),
    up: rate('up'),
    down: rate('down'),
    refused: rate('refused'),
    failed: rate('failed'),
    overloaded: rate('overloaded'),
  };
  const backends = pools.flatMap((pool) => pool.backends);
  each(store.backends, backends, keyOf, at, (backend) => ({
    opened: backend.opened,
    answered: backend.answered,
    up: backend.bytes_up,
    down: backend.bytes_down,
    failed: Object.values(backend.connect_failures).reduce((sum, count) => sum + count, 0),
    checks: backend.checks_failed,
  }));
  each(store.listenerRates, listeners, (listener) => listener.name, at, (listener) => ({
    refused: listener.refused,
    up: listener.bytes_up,
    down: listener.bytes_down,
  }));
  each(store.workers, status.workers, (worker) => worker.worker, at, (worker) => ({
    accepted: worker.numbers.accepted ?? 0,
    up: worker.bytes_up,
    down: worker.bytes_down,
    failures: worker.numbers.connect_failures ?? 0,
  }));
  if (!isFirst) addPoint(status, pools, at);
}

/** Adds a sample to the minute of each item, and forgets those of items that are gone. */
function each(minutes, items, key, at, values) {
  const keys = new Set();
  for (const item of items) {
    const its = key(item);
    keys.add(its);
    if (!minutes.has(its)) minutes.set(its, new Minute());
    minutes.get(its).add(at, values(item));
  }
  for (const its of minutes.keys()) if (!keys.has(its)) minutes.delete(its);
}

function addPoint(status, pools, at) {
  const point = {
    time: at / 1000,
    connections: status.connections,
    queued: pools.reduce((sum, pool) => sum + pool.queued, 0),
    ...store.rates,
  };
  for (const { name, last_10s: window } of status.latencies) {
    for (const quantile of QUANTILES) {
      const us = window.count > 0 ? window[`${quantile}_us`] : null;
      point[`${name}.${quantile}`] = us > 0 ? us : null;
    }
  }
  push(point);
}

function push(point) {
  // The clock was set back: lines go forward.
  if (store.points.time.at(-1) >= point.time) store.points = columns();
  for (const [name, column] of Object.entries(store.points)) {
    column.push(point[name] ?? null);
    if (column.length > POINTS_MAX) column.shift();
  }
}

/** The counters of a minute of a backend. */
export const minuteOf = (backend) => store.backends.get(keyOf(backend));

let polling = null;

/** Asks once. */
export async function poll() {
  polling ??= pollNow().finally(() => {
    polling = null;
  });
  return polling;
}

async function pollNow() {
  try {
    const [status, pools, listeners] = await Promise.all([
      get('/v1/status'),
      get('/v1/pools'),
      get('/v1/listeners'),
    ]);
    const wasLost = store.unreachable !== '';
    store.unreachable = '';
    // A gap in the lines is honest: nothing is known of that time.
    if (wasLost) push({ time: Date.now() / 1000 - 0.5 });
    take(status, pools, listeners, Date.now());
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (store.unreachable === '') store.unreachableSince = Date.now();
    store.unreachable = error.message;
  }
  publish('poll');
}

/** Fills the lines with what the balancer remembers, so that the page does not begin with nothing. */
async function remember() {
  if (store.points.time.length > 0 || !(await has('/v1/history'))) return;
  const answer = await get('/v1/history', { of: 'process', since: '15m' });
  const figures = answer.subjects.find((one) => one.kind === 'process')?.figures ?? {};
  const sum = (names, place) => {
    const known = names.map((name) => figures[name]?.sum?.[place]).filter((value) => value != null);
    return known.length ? known.reduce((all, value) => all + value, 0) / answer.step : null;
  };
  const closed = (reasons) => reasons.map((reason) => `worker_closed.${reason}`);
  // The last interval goes on: what is asked from now on continues it.
  const past = answer.at.slice(0, -1).map((at, place) => {
    const connections = figures.connections?.mean[place] ?? null;
    const isKnown = connections != null;
    const point = {
      time: at + answer.step / 2,
      connections,
      accepted: sum(['worker_accepted'], place),
      up: sum(['worker_traffic.up'], place),
      down: sum(['worker_traffic.down'], place),
      // A reason that never happened has no figure.
      refused: isKnown ? (sum(closed(REFUSALS), place) ?? 0) : null,
      failed: isKnown ? (sum(closed(FAILURES), place) ?? 0) : null,
    };
    for (const kind of KINDS) {
      for (const quantile of QUANTILES) {
        const seconds = figures[`worker_${kind}`]?.[quantile]?.[place];
        point[`${kind}.${quantile}`] = seconds > 0 ? seconds * 1e6 : null;
      }
    }
    return point;
  });
  const now = Date.now() / 1000;
  // What is not yet recorded is no gap, if it is of the last two steps.
  while (past.at(-1)?.connections === null && past.at(-1).time > now - 2 * answer.step) past.pop();
  past.filter((point) => point.time < now).forEach(push);
}

/** Asks again and again, until the role is lost. */
export async function keepPolling() {
  // The page works without it.
  await remember().catch(() => null);
  while (roleNow()) {
    await poll();
    const backends = store.pools.reduce((sum, pool) => sum + pool.backends.length, 0);
    const usual = backends > MANY ? 2_000 : 1_000;
    await pause(document.hidden ? 5_000 : usual);
  }
}

const pause = (time) => new Promise((resolve) => setTimeout(resolve, time));

let lastId = '';

/** Follows the events, and connects again after each end, until the role is lost. */
export async function keepFollowing() {
  let wait = 500;
  while (roleNow()) {
    const stop = new AbortController();
    const end = subscribe((what) => what === 'role' && !roleNow() && stop.abort());
    try {
      await follow({
        lastId,
        recent: EVENTS_MAX,
        signal: stop.signal,
        onOpen: () => {
          wait = 500;
          setStream('live');
        },
        onEvent: (id, event) => {
          lastId = id || lastId;
          addEvent(event);
        },
      });
      setStream('connecting');
    } catch (error) {
      setStream(error instanceof ApiError && error.status ? error.message : 'connecting');
    } finally {
      end();
    }
    await pause(wait);
    wait = Math.min(wait * 2, 10_000);
  }
  lastId = '';
}

function setStream(state) {
  store.stream = state;
  publish('stream');
}

let due = false;

/** Takes an event of the stream. */
export function addEvent(event) {
  const at = ms(event.at);
  store.events.push({ ...event, ms: Number.isFinite(at) ? at : Date.now() });
  if (store.events.length > EVENTS_MAX) store.events.shift();
  if (due) return;
  // Many events of one moment are one change of the screen.
  due = true;
  setTimeout(() => {
    due = false;
    publish('events');
  }, 100);
}

/** The role has changed: others may be shown, or none. */
export function roleChanged() {
  if (!roleNow()) {
    Object.assign(store, { status: null, pools: [], listeners: [], rates: null, events: [] });
    store.points = columns();
    all.samples.length = 0;
  }
  publish('role');
}

/** Asks again soon after a change, so that its effect is seen. */
export async function refresh() {
  await poll();
}
