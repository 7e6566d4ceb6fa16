// One buyer, as a page in a browser acts for a person: join, wait as told, look around, reserve, pay, fetch the ticket.
//
// Artillery starts the buyers, gathers what they emit, and checks the thresholds. The requests are made here and not by
// its HTTP engine, which ends a buyer at the first timeout: ours ask again with the same Idempotency-Key, as told by
// Retry-After. Who buys what is decided in plan.py; a buyer's row of that list comes in as variables, all of them text.

import { randomBytes, randomInt } from 'node:crypto';
import http from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';

const ATTEMPTS_MAX = 6;
const TRY_AGAIN = new Set([429, 502, 503, 504]);
const RETRY_AFTER_MS_MAX = 30_000;
const LOOKS_AT_MAPS_MAX = 12;
const GOOD_SEATS = 12; // they choose among this many of the best that are free
const TICKET_POLL_MS = 500;

// Counted from zero, so that a threshold finds them where nothing of the kind has happened.
const OUTCOMES = ['ticket', 'left', 'sold_out', 'hold_lost'].map((name) => `encore.buyers.${name}`);
const EVENTS = ['retries', 'declined', 'pending', 'seats_taken', 'repeated'].map((name) => `encore.${name}`);

class Ended extends Error {} // the buyer's way is over, for a reason that is no fault; the message is the outcome

export async function buyTicket(context, events) {
  for (const name of [...OUTCOMES, ...EVENTS, 'encore.faults']) events.emit('counter', name, 0);
  const buyer = new Buyer(context.vars, events);
  try {
    await buyer.walk();
    buyer.count('buyers.ticket');
  } catch (fault) {
    if (!(fault instanceof Ended)) {
      buyer.count('faults');
      throw fault;
    }
    buyer.count(`buyers.${fault.message}`);
  } finally {
    buyer.agent.destroy();
  }
}

class Buyer {
  constructor(vars, events) {
    this.events = events;
    this.target = vars.target;
    this.userId = vars.user_id;
    this.concertId = Number(vars.concert_id);
    this.seatsWanted = Number(vars.seats);
    this.method = vars.method;
    this.leaves = vars.leaves;
    this.repeats = vars.repeats === 'yes';
    this.thinkScale = Number(vars.think_scale);
    this.timeoutMs = Number(vars.timeout_s) * 1000;
    this.endsAt = Date.now() + Number(vars.patience_s) * 1000;
    this.agent = new http.Agent({ keepAlive: true, maxSockets: 1 }); // one browser, one connection
  }

  async walk() {
    await this.join();
    await this.waitForPass();
    await this.think(500, 1500);
    await this.ask('step3_concerts', 'GET', '/concerts');
    await this.think(500, 1500);
    await this.ask('step3_concerts', 'GET', `/concerts/${this.concertId}`);
    if (this.leaves === 'line') await this.leave();
    const reservation = await this.reserve();
    const path = `/reservations/${reservation.reservation_id}`;
    if (this.leaves === 'reservation') {
      await this.ask('reservation', 'DELETE', path, { bearer: this.token });
      await this.leave();
    }
    await this.pay(path);
    while (!(await this.fetchTicket(path))) {
      // An open payment (202) has ended in a decline: the seats are still held.
      this.count('declined');
      this.method = 'card';
      await this.pay(path);
    }
  }

  async join() {
    const body = { concert_id: this.concertId, user_id: this.userId };
    const { status, answer } = await this.ask('step1_join_queue', 'POST', '/queue/tokens', { body, accepted: [200, 201, 410] });
    if (status === 410) throw new Ended('sold_out');
    this.token = answer.token;
    this.pollAfterMs = answer.poll_after_ms ?? 0;
  }

  // The page asks once also when the answer to joining let them in already: that fetches, and so claims, the pass.
  async waitForPass() {
    for (;;) {
      await this.pause(this.pollAfterMs);
      const { status, answer } = await this.ask('step2_queue_position', 'GET', '/queue/tokens/current', { bearer: this.token, accepted: [200, 410] });
      if (answer.state === 'admitted') {
        this.pass = answer.pass;
        return;
      }
      if (status === 200) this.pollAfterMs = answer.poll_after_ms;
      else if (answer.type === '/problems/turn-over') await this.join();
      else throw new Ended('sold_out');
    }
  }

  async leave() {
    await this.ask('step2_queue_position', 'DELETE', '/queue/tokens/current', { bearer: this.token, accepted: [204] });
    throw new Ended('left');
  }

  // Looks at the map, picks, asks; where somebody was faster they look at the map again and pick others.
  async reserve() {
    const { answer } = await this.ask('step4_schedules', 'GET', `/concerts/${this.concertId}/schedules`);
    let schedules = answer.schedules.filter((schedule) => schedule.seats_left >= this.seatsWanted);
    let schedule = anyOf(schedules);
    for (let look = 0; look < LOOKS_AT_MAPS_MAX && schedule; look += 1) {
      await this.think(300, 1000);
      const map = (await this.ask('step5_seats', 'GET', `/schedules/${schedule.id}/seats`, { bearer: this.pass })).answer;
      const seats = pickSeats(map.seats, this.seatsWanted);
      if (!seats) {
        schedules = schedules.filter((other) => other !== schedule);
        schedule = anyOf(schedules);
        continue;
      }
      await this.think(500, 2500);
      const order = { body: { schedule_id: schedule.id, seats }, bearer: this.pass, key: newKey(), accepted: [201, 409] };
      const held = await this.ask('step6_reserve', 'POST', '/reservations', order);
      if (held.status === 201) {
        await this.perhapsRepeat('step6_reserve', '/reservations', order, held.answer.reservation_id, 'reservation_id');
        return held.answer;
      }
      if (held.answer.type !== '/problems/seat-taken') throw refused('step6_reserve', held);
      this.count('seats_taken');
    }
    throw new Ended('sold_out');
  }

  async pay(path) {
    await this.think(500, 2500);
    const order = { body: { method: this.method }, bearer: this.pass, key: newKey(), accepted: [201, 202, 402, 409, 410] };
    for (;;) {
      const paid = await this.ask('step7_pay', 'POST', `${path}/payments`, order);
      switch (paid.status) {
        case 201:
          await this.perhapsRepeat('step7_pay', `${path}/payments`, order, paid.answer.payment_id, 'payment_id');
          return;
        case 202:
          this.count('pending');
          await this.pause(paid.retryAfterMs ?? TICKET_POLL_MS);
          return; // the reservation tells how it ends
        case 402:
          this.count('declined');
          if (order.body.method === 'card') throw refused('step7_pay', paid);
          await this.think(500, 1500);
          Object.assign(order, { body: { method: 'card' }, key: newKey() });
          break;
        case 410:
          throw new Ended('hold_lost');
        default:
          if (paid.answer.type !== '/problems/payment-in-progress') throw refused('step7_pay', paid);
          await this.pause(paid.retryAfterMs ?? TICKET_POLL_MS); // a twin of this request is still at it
      }
    }
  }

  // Whether there is a ticket in the end; no ticket means that the seats are theirs still and not paid.
  async fetchTicket(path) {
    const paidAt = Date.now();
    for (;;) {
      const { answer } = await this.ask('reservation', 'GET', path, { bearer: this.token });
      if (answer.ticket) {
        this.events.emit('histogram', 'encore.ticket_wait', Date.now() - paidAt);
        return true;
      }
      if (answer.status === 'held') return false;
      if (!['confirmed', 'paying'].includes(answer.status)) throw new Ended('hold_lost');
      await this.pause(TICKET_POLL_MS);
    }
  }

  // Some press the button twice, or their answer is lost: the same key has the same effect.
  async perhapsRepeat(step, path, order, expected, field) {
    if (!this.repeats) return;
    this.count('repeated');
    const { answer } = await this.ask(step, 'POST', path, { ...order, accepted: [201] });
    if (answer[field] !== expected) throw new Error(`${step}: the same Idempotency-Key had another effect`);
  }

  // One request and its answer; asked again as long as that may help, always with the same key.
  async ask(step, method, path, { body, bearer, key, accepted = [200] } = {}) {
    for (let attempt = 1; ; attempt += 1) {
      const reply = await this.send(step, method, path, { body, bearer, key });
      if (accepted.includes(reply.status)) return reply;
      if (!(reply.fault || TRY_AGAIN.has(reply.status)) || attempt === ATTEMPTS_MAX) throw refused(step, reply);
      this.count('retries');
      this.count(`retries_after.${reply.fault ?? reply.status}`);
      await this.pause(reply.retryAfterMs ?? randomInt(250, 500) * 2 ** attempt);
    }
  }

  async send(step, method, path, { body, bearer, key }) {
    const headers = { Accept: 'application/json' };
    if (body) headers['Content-Type'] = 'application/json';
    if (bearer) headers.Authorization = `Bearer ${bearer}`;
    if (key) headers['Idempotency-Key'] = key;
    const started = performance.now();
    this.events.emit('counter', 'http.requests', 1);
    this.events.emit('rate', 'http.request_rate');
    this.events.emit('counter', `encore.steps.${step}.requests`, 1);
    try {
      const reply = await exchange(this.agent, this.timeoutMs, method, this.target + path, headers, body);
      this.record(step, reply.status, performance.now() - started);
      return reply;
    } catch (fault) {
      const code = fault.name === 'TimeoutError' || fault.code === 'ABORT_ERR' ? 'timeout' : (fault.code ?? fault.message);
      this.events.emit('counter', `http.codes.${code}`, 1);
      this.events.emit('counter', `encore.steps.${step}.faults`, 1);
      return { fault: code, status: 0, answer: {} };
    }
  }

  record(step, status, tookMs) {
    this.events.emit('counter', 'http.responses', 1);
    this.events.emit('counter', `http.codes.${status}`, 1);
    this.events.emit('histogram', 'http.response_time', tookMs);
    this.events.emit('histogram', `encore.steps.${step}.response_time`, tookMs);
    if (status >= 500) this.events.emit('counter', `encore.steps.${step}.faults`, 1);
  }

  count(name) {
    this.events.emit('counter', `encore.${name}`, 1);
  }

  think(msMin, msMax) {
    return this.pause(randomInt(msMin, msMax) * this.thinkScale);
  }

  async pause(ms) {
    if (Date.now() + ms > this.endsAt) throw new Error('gave up: the patience of a buyer is over');
    await sleep(ms);
  }
}

async function exchange(agent, timeoutMs, method, url, headers, body) {
  const text = body && JSON.stringify(body);
  if (text) headers['Content-Length'] = Buffer.byteLength(text);
  const response = await new Promise((resolve, reject) => {
    const request = http.request(url, { agent, method, headers, signal: AbortSignal.timeout(timeoutMs) }, resolve);
    request.on('error', reject);
    request.end(text);
  });
  const chunks = await response.toArray();
  const retryAfterS = Number(response.headers['retry-after']);
  return {
    status: response.statusCode,
    answer: parsed(Buffer.concat(chunks).toString()),
    retryAfterMs: retryAfterS > 0 ? Math.min(retryAfterS * 1000, RETRY_AFTER_MS_MAX) : undefined,
  };
}

function parsed(text) {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {}; // not one of our functions' answers: the status says it
  }
}

function refused(step, reply) {
  const problem = reply.answer.type ?? reply.answer.message ?? '';
  return new Error(`${step}: ${reply.fault ?? reply.status} ${problem}`.trim());
}

// Seats side by side among the best that are free, else any that are free, else nothing.
function pickSeats(seats, wanted) {
  const isFree = (seat) => seat?.state === 'available';
  const free = seats.filter(isFree);
  if (free.length < wanted) return undefined;
  const beside = [];
  for (let first = 0; first + wanted <= seats.length && beside.length < GOOD_SEATS; first += 1) {
    const row = seats.slice(first, first + wanted);
    if (row.every((seat) => isFree(seat) && seat.row === row[0].row && seat.section === row[0].section)) beside.push(row);
  }
  return (anyOf(beside) ?? free.slice(0, wanted)).map((seat) => seat.number);
}

function anyOf(list) {
  return list.length ? list[randomInt(list.length)] : undefined;
}

function newKey() {
  return randomBytes(16).toString('hex');
}
