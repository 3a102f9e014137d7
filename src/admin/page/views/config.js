// The configuration in force: where each value comes from, and the whole as a file.

import { ask, get, mayWrite } from '../api.js';
import { confirm } from '../dialog.js';
import { choice, field, fill, h, mark, say } from '../dom.js';
import { clock, plural } from '../format.js';
import { askForWrite } from '../signin.js';
import { store } from '../store.js';
import { badge, setBadge, table } from '../table.js';

export const title = 'Configuration';

const TONES = { command: 'warn', discovery: 'note' };

/** A value as one reads it: texts without quotes, what is nothing as a dash. */
function written(value) {
  if (value === null || value === undefined) return '–';
  return typeof value === 'string' ? value : JSON.stringify(value);
}

export function show(box) {
  const search = h('input', { type: 'search', placeholder: 'Words of a setting', oninput: () => draw() });
  const sources = [['', 'all that is set'], ['command', 'commands'], ['discovery', 'discovery'], ['file', 'the file or the flags'], ['default', 'defaults']];
  const from = choice(sources, '', () => draw());
  const reload = h('button', { type: 'button', onclick: () => read() }, 'Read the file again …');
  const note = h('p', { class: 'hint', role: 'status' });
  const error = h('p', { class: 'error', role: 'alert' });
  const reader = h('p', null, 'The configuration may hold secrets, such as addresses of webhooks: only the write token shows it. ', h('button', { type: 'button', class: 'link', onclick: askForWrite }, 'Sign in to see it'));
  const tools = h('div', { class: 'filters' }, field('Search', search), field('From', from), h('div', { class: 'actions' }, reload));
  const values = table({
    caption: 'Values in force',
    key: (setting) => setting.path,
    columns: [
      { id: 'path', title: 'Setting', text: (setting) => setting.path },
      { id: 'value', title: 'Value', text: (setting) => written(setting.value), class: 'long' },
      { id: 'from', title: 'From', node: badge, update: (node, setting) => setBadge(node, { tone: TONES[setting.from] ?? 'off', text: setting.from }) },
    ],
    empty: 'No setting matches.',
    limit: VALUES_MAX,
  });
  const text = h('div', { class: 'source', role: 'region', 'aria-label': 'As a file', tabindex: 0 });
  const whole = h('section', null, values.element, h('h3', null, 'As a file'), text);
  box.append(reader, tools, error, note, whole);
  let ron = '';
  let settings = [];
  let snapshot = null;
  let isLoading = false;

  async function load() {
    if (isLoading || !mayWrite()) return;
    isLoading = true;
    try {
      snapshot = store.status?.snapshot;
      ({ ron, settings = [] } = await get('/v1/config'));
      say(error, '');
      draw();
    } catch (failure) {
      say(error, failure.message);
    }
    isLoading = false;
  }

  function draw() {
    const sought = search.value.toLowerCase();
    const isShown = (setting) => (from.value === '' ? setting.from !== 'default' : setting.from === from.value)
      && `${setting.path}: ${written(setting.value)}`.toLowerCase().includes(sought);
    const shown = settings.filter(isShown);
    values.update(shown);
    fill(text, h('ol', null, ron.split('\n').slice(0, LINES_MAX).map((line) => h('li', { class: line.trimStart().startsWith('//') ? 'comment' : null }, h('code', null, line)))));
    const changed = settings.filter((setting) => setting.from === 'command').length;
    const by = changed ? `${plural(changed, 'value')} by command` : 'no value by command';
    say(note, ron ? `Snapshot ${snapshot} at ${clock(Date.now())}: ${by}; ${plural(shown.length, 'setting')} shown` : '');
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
      for (const part of [tools, note, whole]) mark(part, 'hidden', !mayWrite());
      if (mayWrite() && store.status && store.status.snapshot !== snapshot) load();
    },
  };
}

const LINES_MAX = 5_000;
const VALUES_MAX = 500;
