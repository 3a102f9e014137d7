// Asks the admin API. The token stays in this module's memory: it is never stored, and never part
// of an address.

let token = '';
let role = null;
const listeners = new Set();

/** What the caller may do: `null`, `read` or `write`. */
export const roleNow = () => role;
export const mayWrite = () => role === 'write';

/** Calls back whenever the role changes. */
export function onRole(callback) {
  listeners.add(callback);
}

function setRole(next) {
  if (next === role) return;
  role = next;
  listeners.forEach((callback) => callback(role));
}

/** Why a request failed: the API's own sentence, and the status (0: no answer). */
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

function head() {
  const headers = new Headers({ Accept: 'application/json' });
  if (token) headers.set('Authorization', `Bearer ${token}`);
  return headers;
}

async function send(path, options) {
  try {
    return await fetch(path, {
      cache: 'no-store',
      credentials: 'omit',
      redirect: 'error',
      referrerPolicy: 'no-referrer',
      ...options,
    });
  } catch (error) {
    if (options.signal?.aborted && options.signal.reason?.name !== 'TimeoutError') throw error;
    throw new ApiError(0, 'The balancer does not answer.');
  }
}

async function refusal(response) {
  let why = '';
  try {
    why = (await response.json()).error;
  } catch {
    why = '';
  }
  if (response.status === 401) signOut();
  return new ApiError(response.status, why || `The balancer answered with ${response.status}.`);
}

/** Sends a request, and answers with the JSON of the response. */
export async function ask(method, path, { query, body } = {}) {
  const given = Object.entries(query ?? {}).filter(([, value]) => value !== '' && value != null);
  const search = given.length ? `?${new URLSearchParams(given)}` : '';
  const headers = head();
  if (body !== undefined) headers.set('Content-Type', 'application/json');
  const response = await send(path + search, {
    method,
    headers,
    body: body === undefined ? undefined : JSON.stringify(body),
    signal: AbortSignal.timeout(DEADLINE_MS),
  });
  if (!response.ok) throw await refusal(response);
  try {
    return await response.json();
  } catch {
    throw new ApiError(0, 'The answer of the balancer ended early.');
  }
}

export const get = (path, query) => ask('GET', path, { query });

/** A path of encoded parts: names may have any character. */
export const path = (...parts) => `/v1/${parts.map(encodeURIComponent).join('/')}`;

/** Asks what a token allows, and keeps it if it allows something. Answers with the role. */
export async function signIn(candidate) {
  const before = token;
  token = candidate;
  let found = null;
  try {
    found = (await get('/v1/caller')).role;
  } finally {
    if (!found) token = before;
  }
  if (found) setRole(found);
  return found;
}

/** Forgets the token. */
export function signOut() {
  token = '';
  setRole(null);
}

let paths = null;

/** Whether this balancer's API has a path, such as `/v1/history`. */
export async function has(wanted) {
  paths ??= get('/v1/openapi.json').then((description) => Object.keys(description.paths));
  try {
    return (await paths).includes(wanted);
  } catch (error) {
    paths = null;
    throw error;
  }
}

/**
 * Follows the events until `signal` aborts or the stream ends. Server-sent events are read through
 * fetch, because EventSource sends no token. `lastId` is where to go on.
 */
export async function follow({ lastId, recent, signal, onOpen, onEvent }) {
  const headers = head();
  headers.set('Accept', 'text/event-stream');
  if (lastId) headers.set('Last-Event-ID', lastId);
  const silence = new AbortController();
  let timer = setTimeout(() => silence.abort(), SILENCE_MS);
  const heard = () => {
    clearTimeout(timer);
    timer = setTimeout(() => silence.abort(), SILENCE_MS);
  };
  try {
    const response = await send(`/v1/events?recent=${recent}`, {
      headers,
      signal: AbortSignal.any([signal, silence.signal]),
    });
    if (!response.ok) throw await refusal(response);
    onOpen();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = '';
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      heard();
      text += value;
      if (text.length > BLOCK_MAX) throw new ApiError(0, 'An event is too long.');
      const blocks = text.split('\n\n');
      text = blocks.pop();
      blocks.forEach((block) => read(block, onEvent));
    }
  } finally {
    clearTimeout(timer);
  }
}

/** A block of the stream (HTML standard, section 9.2.6); a comment keeps the connection alive. */
function read(block, onEvent) {
  let id = '';
  const data = [];
  for (const line of block.split('\n')) {
    const [, name, value] = /^([^:]*):? ?(.*)$/.exec(line) ?? [];
    if (name === 'id') id = value;
    if (name === 'data') data.push(value);
  }
  if (data.length) onEvent(id, JSON.parse(data.join('\n')));
}

const DEADLINE_MS = 8_000;
/** The balancer sends a comment every 15 s. */
const SILENCE_MS = 40_000;
const BLOCK_MAX = 1 << 20;
