// The effective configuration, as a file that could be run with.

import { ask, get, mayWrite } from '../api.js';
import { confirm } from '../dialog.js';
import { fill, h, mark, say } from '../dom.js';
import { clock, plural } from '../format.js';
import { askForWrite } from '../signin.js';
import { store } from '../store.js';

export const title = 'Configuration';

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
  let snapshot = null;
  let isLoading = false;

  async function load() {
    if (isLoading || !mayWrite()) return;
    isLoading = true;
    try {
      snapshot = store.status?.snapshot;
      ({ ron } = await get('/v1/config'));
      say(error, '');
      draw();
    } catch (failure) {
      say(error, failure.message);
    }
    isLoading = false;
  }

  function draw() {
    const sought = search.value.toLowerCase();
    const lines = ron.split('\n').map((line, place) => ({ line, place }));
    const shown = lines.filter(({ line }) => line.toLowerCase().includes(sought));
    fill(text, h('ol', null, shown.slice(0, LINES_MAX).map(({ line, place }) => h('li', { value: place + 1, class: line.trimStart().startsWith('//') ? 'comment' : '' }, h('code', null, line)))));
    const matching = sought ? `, ${plural(shown.length, 'line')} with “${search.value}”` : '';
    say(note, ron ? `Snapshot ${snapshot} at ${clock(Date.now())}${matching}` : '');
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
