// Builds elements. Text from outside becomes a text node: nothing here parses HTML.

import { harmless } from './format.js';

/** An element with properties, attributes, listeners (`on...`) and children. */
export function h(name, props, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else if (key === 'class') element.className = value;
    else if (key === 'value') element.value = value;
    else element.setAttribute(key, value === true ? '' : String(value));
  }
  add(element, children);
  return element;
}

/** The same for SVG. */
export function svg(name, attributes, ...children) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes ?? {})) element.setAttribute(key, value);
  add(element, children);
  return element;
}

function add(element, children) {
  for (const child of children.flat(9)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : harmless(child));
  }
}

/** Sets the text of an element, if it differs: a screen that has not changed costs nothing. */
export function say(element, text) {
  const plain = harmless(text);
  if (element.textContent !== plain) element.textContent = plain;
}

/** The same for an address, which may break before its port and nowhere else. */
export function sayPlace(element, text) {
  if (element.textContent === harmless(text)) return;
  const [place, port] = String(text).split(/(?=:\d+$)/);
  fill(element, place, port ? [h('wbr'), port] : null);
}

/** Sets or removes an attribute. */
export function mark(element, name, value) {
  if (value === null || value === undefined || value === false) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, String(value));
}

/** Replaces the children of an element. */
export function fill(element, ...children) {
  element.replaceChildren();
  add(element, children);
  return element;
}

let ids = 0;

/** An id that no other element has. */
export function id(stem) {
  ids += 1;
  return `${stem}-${ids}`;
}

/** A labelled control. */
export function field(label, control, hint) {
  control.id ||= id('field');
  const about = hint ? h('span', { class: 'hint', id: id('hint') }, hint) : null;
  if (about) control.setAttribute('aria-describedby', about.id);
  return h('div', { class: 'field' }, h('label', { for: control.id }, label), control, about);
}

/** A list to choose from; options are values or pairs of value and text. */
export function choice(options, value, onchange) {
  const select = h('select', { onchange: () => onchange?.(select.value) });
  setOptions(select, options, value);
  return select;
}

/** Replaces the options of a list, and keeps what is chosen where it can. */
export function setOptions(select, options, value = select.value) {
  const pairs = options.map((option) => (Array.isArray(option) ? option : [option, option]));
  const wanted = JSON.stringify(pairs);
  if (select.dataset.options !== wanted) {
    select.dataset.options = wanted;
    fill(select, pairs.map(([key, text]) => h('option', { value: key }, text)));
  }
  select.value = pairs.some(([key]) => key === value) ? value : (pairs[0]?.[0] ?? '');
}
