// Numbers, times and names for people: the same forms as the commands have.

function scaled(number, units, separator) {
  let value = Math.abs(number);
  let place = 0;
  while (value >= 999.5 && place + 1 < units.length) {
    value /= 1000;
    place += 1;
  }
  const digits = place > 0 && value < 9.95 ? 1 : 0;
  return `${number < 0 ? '−' : ''}${value.toFixed(digits)}${units[place] ? separator : ''}${units[place]}`;
}

const LETTERS = ['', 'k', 'M', 'G', 'T', 'P', 'E'];
const UNKNOWN = '–';
const isNumber = (value) => typeof value === 'number' && Number.isFinite(value);

/** `0`, `999`, `1.2k`, `12M`. */
export const count = (number) => (isNumber(number) ? scaled(number, LETTERS, '') : UNKNOWN);

/** `0.5`, `12`, `1.2k`: without the unit. */
export function rate(perSecond) {
  if (!isNumber(perSecond)) return UNKNOWN;
  if (perSecond > 0 && perSecond < 9.95) return perSecond.toFixed(1);
  return scaled(perSecond, LETTERS, '');
}

/** `3.4 MB`: powers of 1000. */
export const bytes = (number) =>
  isNumber(number) ? scaled(number, ['B', 'kB', 'MB', 'GB', 'TB', 'PB', 'EB'], ' ') : UNKNOWN;

/** `3.4 MB/s`. */
export const bytesRate = (number) => (isNumber(number) ? `${bytes(number)}/s` : UNKNOWN);

/** `85 µs`, `1.2 ms`, `12 s`. */
export function micros(us) {
  if (!isNumber(us)) return UNKNOWN;
  if (us >= 99.5e6) return span(us / 1e6);
  return us > 0 && us < 1 ? `${us.toFixed(1)} µs` : scaled(us, ['µs', 'ms', 's'], ' ');
}

/** `23s`, `2m 5s`, `3h 4m`, `12d 1h`. */
export function span(seconds) {
  if (!isNumber(seconds)) return UNKNOWN;
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s}s`;
  if (s < 3600) return `${Math.floor(s / 60)}m ${s % 60}s`;
  if (s < 86400) return `${Math.floor(s / 3600)}h ${Math.floor(s / 60) % 60}m`;
  return `${Math.floor(s / 86400)}d ${Math.floor(s / 3600) % 24}h`;
}

/** `12%`, `0.4%`. */
export function percent(part, whole) {
  if (!isNumber(part) || !(whole > 0)) return UNKNOWN;
  const value = (100 * part) / whole;
  return `${value > 0 && value < 9.95 ? value.toFixed(1) : value.toFixed(0)}%`;
}

/** `1 session`, `2 sessions`. */
export const plural = (number, noun, nouns = `${noun}s`) =>
  `${number.toLocaleString('en')} ${number === 1 ? noun : nouns}`;

const CLOCK = new Intl.DateTimeFormat('en-GB', { timeStyle: 'medium' });
const MINUTE = new Intl.DateTimeFormat('en-GB', { timeStyle: 'short' });
const DAY = new Intl.DateTimeFormat('en-GB', { weekday: 'short', day: 'numeric', month: 'short' });
const WHOLE = new Intl.DateTimeFormat('en-GB', { dateStyle: 'medium', timeStyle: 'long' });

/** A time (RFC 3339 or ms) as ms; `NaN` where there is none. */
export const ms = (time) => (typeof time === 'number' ? time : Date.parse(time ?? ''));

/** `03:12:04`, with the day where it is not today. */
export function clock(time) {
  const at = ms(time);
  if (!isNumber(at)) return UNKNOWN;
  const date = new Date(at);
  const isToday = date.toDateString() === new Date().toDateString();
  return isToday ? CLOCK.format(date) : `${DAY.format(date)} ${CLOCK.format(date)}`;
}

/** `03:12`. */
export const minute = (time) => MINUTE.format(new Date(ms(time)));

/** The whole time, for a title. */
export const whole = (time) => (isNumber(ms(time)) ? WHOLE.format(new Date(ms(time))) : '');

/** `4m 2s ago`. */
export const ago = (time) => (isNumber(ms(time)) ? `${span((Date.now() - ms(time)) / 1000)} ago` : '');

/** `03:12:04 (4m 2s ago)`. */
export const since = (time) => (isNumber(ms(time)) ? `${clock(time)} (${ago(time)})` : UNKNOWN);

/** The word of a program, for people: `client_reset` is `client reset`. */
export const words = (name) => String(name ?? '').replaceAll('_', ' ');

/** What a sentence says beyond the word that stands before it. */
export const beyond = (word, says) => {
  if (says === word) return '';
  return says.startsWith(`${word}: `) ? says.slice(word.length + 2) : says;
};

/** Control characters and marks that turn or hide text become visible, as in the commands. */
export const harmless = (text) =>
  String(text ?? '').replace(
    /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g,
    '\ufffd',
  );
