// Times in the viewer's time zone.

export const SECOND = 1000;
export const MINUTE = 60 * SECOND;
export const HOUR = 60 * MINUTE;
export const DAY = 24 * HOUR;

const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800,
  2592000, 31536000, 315360000].map((seconds) => seconds * SECOND);
const whole = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const short = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });
const date = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const year = new Intl.DateTimeFormat(undefined, { year: "numeric", month: "short" });

/** Return the name of the viewer's time zone. */
export const zone = () => Intl.DateTimeFormat().resolvedOptions().timeZone;

/** Return a time to the second. */
export const moment = (time) => whole.format(time);

/** Return the value of a datetime-local input. */
export function local(time) {
  const at = new Date(time);
  const two = (number, width = 2) => String(number).padStart(width, "0");
  return `${two(at.getFullYear(), 4)}-${two(at.getMonth() + 1)}-${two(at.getDate())}T${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

/** Return [time, text] of the marks of an axis, at most `most` of them. */
export function ticks(from, to, most) {
  const step = STEPS.find((each) => (to - from) / each <= most) ?? STEPS.at(-1);
  const shift = new Date(from).getTimezoneOffset() * MINUTE; // whole hours and days of the viewer's clock
  const found = [];
  for (let at = Math.ceil((from - shift) / step) * step + shift; at <= to && found.length <= most; at += step) {
    const midnight = new Date(at).getHours() === 0 && new Date(at).getMinutes() === 0;
    const form = step >= 28 * DAY ? year : step >= DAY || (midnight && step >= MINUTE) ? date : step < MINUTE ? clock : short;
    found.push([at, form.format(at)]);
  }
  return found;
}
