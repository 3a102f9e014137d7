// The frame of the page: sign-in, navigation, theme, and what the header says. A view is a module
// with `title` and `show(box, query)`, which answers with `update(what)` and maybe `leave()`.

import { mayWrite, onRole, roleNow, signIn, signOut } from './api.js';
import { recolour } from './charts.js';
import { toast } from './dialog.js';
import { fill, h, mark, say } from './dom.js';
import { count, plural, since, span } from './format.js';
import { problems } from './problems.js';
import { askForWrite, showSignIn } from './signin.js';
import { keepFollowing, keepPolling, roleChanged, store, subscribe } from './store.js';

import * as backends from './views/backends.js';
import * as bans from './views/bans.js';
import * as config from './views/config.js';
import * as distribution from './views/distribution.js';
import * as events from './views/events.js';
import * as explain from './views/explain.js';
import * as health from './views/health.js';
import * as history from './views/history.js';
import * as listeners from './views/listeners.js';
import * as overview from './views/overview.js';
import * as pools from './views/pools.js';
import * as sessions from './views/sessions.js';

const GROUPS = [
  ['Now', { overview, backends, pools, listeners, distribution, sessions, bans }],
  ['Over time', { health, history, events }],
  ['Why', { explain, config }],
];
const VIEWS = Object.assign({}, ...GROUPS.map(([, views]) => views));

const $ = (id) => document.getElementById(id);
let current = null;
let links = {};

/** The view and its query, from the part behind `#`. */
function route() {
  const [name, search] = location.hash.replace(/^#\/?/, '').split('?');
  return { name: Object.hasOwn(VIEWS, name) ? name : 'overview', query: new URLSearchParams(search) };
}

function drawNav() {
  links = {};
  fill(
    $('nav'),
    GROUPS.map(([title, views]) => [
      h('h2', null, title),
      h(
        'ul',
        null,
        Object.entries(views).map(([name, view]) => {
          links[name] = h('a', { href: `#/${name}` }, h('span', null, view.title), h('b'));
          return h('li', null, links[name]);
        }),
      ),
    ]),
  );
}

function go({ focus } = {}) {
  const { name, query } = route();
  current?.leave?.();
  current = null;
  openMenu(false);
  const view = VIEWS[name];
  document.title = `${view.title} – Mahoraga`;
  for (const [its, link] of Object.entries(links)) mark(link, 'aria-current', its === name && 'page');
  const box = fill($('main'), h('h1', { class: view.wide ? 'hidden' : '' }, view.title));
  box.className = `view-${name}`;
  if (!roleNow()) {
    showSignIn(box);
    return;
  }
  current = view.show(box, query) ?? {};
  current.update?.('show');
  if (focus) $('main').focus({ preventScroll: true });
  window.scrollTo(0, 0);
}

function drawHeader() {
  const { status } = store;
  const vitals = status
    ? `${status.version} · ${status.stage} · up ${span(status.uptime_s)} · ` +
      `${count(status.connections)} of ${count(status.max_connections)} connections`
    : '';
  say($('vitals'), vitals);
  const live = $('live');
  const isLost = store.unreachable !== '';
  const tone = isLost ? 'bad' : store.stream === 'live' ? 'good' : 'warn';
  mark(live, 'data-tone', roleNow() ? tone : null);
  const word = isLost
    ? `no answer since ${since(store.unreachableSince)}`
    : store.stream === 'live' ? 'live' : 'events: reconnecting';
  say(live, roleNow() ? word : '');
  mark(live, 'title', store.stream === 'live' || store.stream === 'connecting' ? null : store.stream);
}

let announced = '';

function drawProblems() {
  const found = problems();
  const serious = found.filter((problem) => problem.tone !== 'note');
  const badgeOf = links.overview?.lastChild;
  if (badgeOf) {
    say(badgeOf, serious.length ? String(serious.length) : '');
    mark(badgeOf, 'title', serious.length ? plural(serious.length, 'problem') : null);
    mark(badgeOf, 'data-tone', serious[0]?.tone ?? null);
  }
  // Screen readers hear of a problem once, wherever they are.
  const words = serious.map((problem) => problem.text).join('. ');
  if (words !== announced) {
    announced = words;
    say($('alerts'), words || 'Nothing is wrong any more.');
  }
}

function drawAccount() {
  const labels = { null: 'Sign in', read: 'Sign in to change', write: 'Sign out' };
  say($('account'), labels[roleNow()]);
  $('account').hidden = !roleNow();
}

async function account() {
  if (!mayWrite()) return askForWrite();
  signOut();
  // The demo lets readers in without a token.
  await signIn('').catch(() => null);
  toast('Signed out.');
  return undefined;
}

function openMenu(isOpen) {
  document.body.classList.toggle('menu-open', isOpen);
  mark($('menu'), 'aria-expanded', String(isOpen));
}

/** The theme: the system's, until the button chooses. It is not stored. */
function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  const other = theme === 'dark' ? 'light' : 'dark';
  mark($('theme'), 'aria-label', `Use the ${other} theme`);
  mark($('theme'), 'title', `Use the ${other} theme`);
  recolour();
}

let isRunning = false;

async function onRoleChange() {
  roleChanged();
  drawAccount();
  go();
  if (roleNow() && !isRunning) {
    isRunning = true;
    await Promise.all([keepPolling(), keepFollowing()]);
    isRunning = false;
    if (roleNow()) onRoleChange();
  }
}

async function begin() {
  drawNav();
  const dark = matchMedia('(prefers-color-scheme: dark)');
  let chosen = false;
  setTheme(dark.matches ? 'dark' : 'light');
  dark.addEventListener('change', () => chosen || setTheme(dark.matches ? 'dark' : 'light'));
  $('theme').addEventListener('click', () => {
    chosen = true;
    setTheme(document.documentElement.dataset.theme === 'dark' ? 'light' : 'dark');
  });
  $('account').addEventListener('click', account);
  $('menu').addEventListener('click', () => openMenu(!document.body.classList.contains('menu-open')));
  document.querySelector('.skip').addEventListener('click', (event) => {
    event.preventDefault();
    $('main').focus();
  });
  addEventListener('hashchange', () => go({ focus: true }));
  addEventListener('keydown', (event) => {
    const isTyping = event.target.closest?.('input, select, textarea, dialog');
    if (event.key === 'Escape') openMenu(false);
    if (event.key !== '/' || isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
    const filter = document.querySelector('main input[type=search]');
    if (!filter) return;
    event.preventDefault();
    filter.focus();
  });
  subscribe((what) => {
    drawHeader();
    if (what !== 'stream') drawProblems();
    current?.update?.(what);
  });
  onRole(onRoleChange);
  drawAccount();
  try {
    // Without a token: the demo lets readers in.
    if (!(await signIn(''))) go();
  } catch (error) {
    go();
    toast(error.message, 'bad');
  }
}

begin();
