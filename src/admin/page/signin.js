// Sign-in with a token of the admin API, which goes no further than `api.js`.

import { signIn } from './api.js';
import { confirm } from './dialog.js';
import { field, fill, h } from './dom.js';

/** The form in place of the views. */
export function showSignIn(box) {
  const error = h('p', { class: 'error', role: 'alert' });
  const token = h('input', {
    type: 'password', autocomplete: 'off', spellcheck: 'false', required: true, name: 'token',
  });
  const button = h('button', { type: 'submit', class: 'primary' }, 'Sign in');
  const submit = async (event) => {
    event.preventDefault();
    button.disabled = true;
    fill(error);
    try {
      const role = await signIn(token.value.trim());
      token.value = '';
      if (!role) fill(error, 'The balancer does not know this token.');
    } catch (failure) {
      fill(error, failure.message);
    }
    button.disabled = false;
  };
  fill(
    box,
    h(
      'form',
      { class: 'signin', onsubmit: submit },
      h('h1', null, 'Sign in'),
      field('Token of the admin API', token, 'It stays in the memory of this page alone.'),
      error,
      button,
      h(
        'details',
        null,
        h('summary', null, 'Where is the token?'),
        h(
          'ul',
          null,
          h('li', null, h('code', null, 'mahoraga proxy --admin-http'), ' names the file of its tokens when it starts.'),
          h('li', null, h('code', null, 'mahoraga demo'), ' prints the token.'),
          h('li', null, h('code', null, 'mahoraga run'), ' reads the files that ', h('code', null, 'read_token'), ' and ', h('code', null, 'write_token'), ' name in its configuration.'),
        ),
      ),
    ),
  );
  token.focus();
}

/** Asks for the write token, without leaving the view. */
export async function askForWrite() {
  const token = h('input', { type: 'password', autocomplete: 'off', spellcheck: 'false', required: true });
  await confirm({
    title: 'Sign in to make changes',
    about: field('Write token', token, 'It stays in the memory of this page alone.'),
    verb: 'Sign in',
    act: async () => {
      const role = await signIn(token.value.trim());
      if (!role) throw new Error('The balancer does not know this token.');
      return role === 'write' ? 'You may make changes now.' : 'This token may read only.';
    },
  });
}
