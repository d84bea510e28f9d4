// What enqueueing and working share: where Redis is, and the name of the queue.
const url = new URL(process.env.PEER_REDIS);

exports.QUEUE = "deliver";
exports.connection = {
  host: url.hostname,
  port: Number(url.port),
  password: decodeURIComponent(url.password) || undefined,
  maxRetriesPerRequest: null,
};
