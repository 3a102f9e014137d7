// Dialogs that ask before something changes, and short notes of what changed.

import { h, fill, id } from './dom.js';

/**
 * Asks, then acts. `act` answers with a sentence about what happened, which is shown; a failure
 * stays in the dialog, so that it can be tried again. Answers whether it was done.
 */
export function confirm({ title, about, verb, danger, act }) {
  return new Promise((resolve) => {
    const error = h('p', { class: 'error', role: 'alert' });
    const yes = h('button', { type: 'submit', class: danger ? 'danger' : 'primary' }, verb);
    const no = h('button', { type: 'button', onclick: () => dialog.close() }, 'Cancel');
    const heading = h('h2', { id: id('dialog') }, title);
    let done = false;
    const submit = async (event) => {
      event.preventDefault();
      yes.disabled = true;
      fill(error);
      try {
        const sentence = await act();
        done = true;
        dialog.close();
        if (sentence) toast(sentence);
      } catch (failure) {
        fill(error, failure.message);
        yes.disabled = false;
        yes.focus();
      }
    };
    const form = h('form', { onsubmit: submit }, heading, about, error, h('menu', null, no, yes));
    const dialog = open(form, heading.id, () => resolve(done));
    no.focus();
  });
}

/** Shows a dialog until it is closed. */
export function open(content, labelledBy, onClose) {
  const before = document.activeElement;
  const dialog = h('dialog', { 'aria-labelledby': labelledBy }, content);
  dialog.addEventListener('close', () => {
    dialog.remove();
    if (before?.isConnected) before.focus();
    onClose?.();
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/** A short note, which screen readers read out. */
export function toast(sentence, tone = 'good') {
  const box = document.getElementById('toasts');
  const close = () => note.remove();
  const note = h(
    'p',
    { class: 'toast', 'data-tone': tone },
    h('span', null, sentence),
    h('button', { type: 'button', class: 'quiet', 'aria-label': 'Dismiss', onclick: close }, '×'),
  );
  box.append(note);
  while (box.children.length > TOASTS_MAX) box.firstChild.remove();
  setTimeout(close, TOAST_MS);
}

const TOASTS_MAX = 4;
const TOAST_MS = 8_000;
