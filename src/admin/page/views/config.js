// The effective configuration, as a file that could be run with.

import { ask, get, mayWrite } from '../api.js';
import { confirm } from '../dialog.js';
import { fill, h, mark, say } from '../dom.js';
import { clock, plural } from '../format.js';
import { askForWrite } from '../signin.js';
import { store } from '../store.js';

export const title = 'Configuration';

/** The lines of the text, each with where it comes from; lines that commands have taken away too. */
export function sourced(ron, file) {
  const left = new Map();
  const key = (line) => line.trim();
  for (const line of file.split('\n')) left.set(key(line), (left.get(key(line)) ?? 0) + 1);
  const lines = ron.split('\n').map((line, place) => {
    const count = left.get(key(line)) ?? 0;
    if (count > 0) left.set(key(line), count - 1);
    return { line, place, from: count > 0 ? 'file' : 'command' };
  });
  const gone = file.split('\n').filter((line) => {
    const count = left.get(key(line)) ?? 0;
    if (count > 0) left.set(key(line), count - 1);
    return count > 0 && key(line) !== '';
  });
  return [...lines, ...gone.map((line) => ({ line, place: null, from: 'gone' }))];
}

const WORDS = { file: '', command: 'by command', gone: 'in the file, replaced by command' };

function lineItem({ line, place, from }) {
  const isComment = line.trimStart().startsWith('//');
  const kind = from === 'gone' ? h('del', null, line) : line;
  return h(
    'li',
    { value: place === null ? null : place + 1, class: `${from}${isComment ? ' comment' : ''}` },
    h('code', null, kind),
    WORDS[from] ? h('span', { class: 'badge', 'data-tone': from === 'gone' ? 'note' : 'warn' }, WORDS[from]) : null,
  );
}

export function show(box) {
  const search = h('input', { type: 'search', placeholder: 'Words of a line', 'aria-label': 'Search', oninput: () => draw() });
  const reload = h('button', { type: 'button', onclick: () => read() }, 'Read the file again …');
  const note = h('p', { class: 'hint', role: 'status' });
  const error = h('p', { class: 'error', role: 'alert' });
  const text = h('div', { class: 'source', role: 'region', 'aria-label': 'Effective configuration', tabindex: 0 });
  const reader = h('p', null, 'The configuration may hold secrets, such as addresses of webhooks: only the write token shows it. ', h('button', { type: 'button', class: 'link', onclick: askForWrite }, 'Sign in to see it'));
  const tools = h('div', { class: 'filters' }, h('div', { class: 'field' }, search), h('div', { class: 'actions' }, reload));
  box.append(reader, tools, error, note, text);
  let ron = '';
  let file = '';
  let snapshot = null;
  let isLoading = false;

  async function load() {
    if (isLoading || !mayWrite()) return;
    isLoading = true;
    try {
      snapshot = store.status?.snapshot;
      ({ ron, file = ron } = await get('/v1/config'));
      say(error, '');
      draw();
    } catch (failure) {
      say(error, failure.message);
    }
    isLoading = false;
  }

  function draw() {
    const sought = search.value.toLowerCase();
    const lines = sourced(ron, file);
    const shown = lines.filter(({ line }) => line.toLowerCase().includes(sought));
    fill(text, h('ol', null, shown.slice(0, LINES_MAX).map(lineItem)));
    const matching = sought ? `, ${plural(shown.length, 'line')} with “${search.value}”` : '';
    const changed = lines.filter((one) => one.from !== 'file').length;
    const by = changed ? `${plural(changed, 'line')} by command` : 'no line by command';
    say(note, ron ? `Snapshot ${snapshot} at ${clock(Date.now())}: ${by}, all others from the file or the flags; what is not here has its default${matching}` : '');
  }

  async function read() {
    await confirm({
      title: 'Read the configuration file again?',
      verb: 'Reload',
      about: h('p', null, 'What has changed in the file takes effect. A mistake in it leaves everything as it is. Open sessions go on.'),
      act: async () => {
        const reloaded = await ask('POST', '/v1/reload');
        const what = reloaded.changed ? 'is in force' : 'stays in force: nothing has changed';
        return [`Snapshot ${reloaded.snapshot} ${what}.`, ...(reloaded.notes ?? []), ...(reloaded.changes ?? [])].join(' ');
      },
    });
    load();
  }

  return {
    update() {
      mark(reader, 'hidden', mayWrite());
      mark(tools, 'hidden', !mayWrite());
      mark(text, 'hidden', !mayWrite());
      if (mayWrite() && store.status && store.status.snapshot !== snapshot) load();
    },
  };
}

const LINES_MAX = 5_000;
