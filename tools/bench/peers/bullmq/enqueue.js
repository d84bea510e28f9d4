// Adds a job for each line of standard input, a thousand at a time.
const readline = require("node:readline");
const { Queue } = require("bullmq");
const { QUEUE, connection } = require("./shared");

async function main() {
  const queue = new Queue(QUEUE, { connection });
  let jobs = [];
  const flush = async () => {
    await queue.addBulk(jobs);
    jobs = [];
  };
  const opts = { removeOnComplete: true, attempts: 10, backoff: { type: "exponential", delay: 500 } };
  for await (const line of readline.createInterface({ input: process.stdin })) {
    jobs.push({ name: "deliver", data: JSON.parse(line), opts });
    if (jobs.length >= 1000) await flush();
  }
  if (jobs.length) await flush();
  await queue.close();
}

main();
