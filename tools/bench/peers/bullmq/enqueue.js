// Adds jobs for the lines of standard input, each with $PEER_TOGETHER events.
const readline = require("node:readline");
const { Queue } = require("bullmq");
const { QUEUE, connection } = require("./shared");

const TOGETHER = Number(process.env.PEER_TOGETHER);
const AT_ONCE = Math.ceil(1000 / TOGETHER);

async function main() {
  const queue = new Queue(QUEUE, { connection });
  const opts = { removeOnComplete: true, attempts: 10, backoff: { type: "exponential", delay: 500 } };
  let events = [];
  let jobs = [];
  const close = () => {
    if (events.length) jobs.push({ name: "deliver", data: events, opts });
    events = [];
  };
  const flush = async () => {
    await queue.addBulk(jobs);
    jobs = [];
  };
  for await (const line of readline.createInterface({ input: process.stdin })) {
    events.push(JSON.parse(line));
    if (events.length >= TOGETHER) close();
    if (jobs.length >= AT_ONCE) await flush();
  }
  close();
  if (jobs.length) await flush();
  await queue.close();
}

main();
