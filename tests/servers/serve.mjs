// What every server of this folder shares: reading the configuration, listening on the loopback
// interface only, saying when it is ready, and ending together with the process that started it.

import { createServer } from 'node:http';
import { readFileSync } from 'node:fs';

/**
 * The JSON object given in SERVER_CONFIG, or as the first argument (the JSON itself, or "@file").
 * A key that is not in `known` is refused: a misspelt switch must not make a test pass by accident.
 */
export function readConfig(known) {
  const argument = process.argv[2];
  const given = process.env.SERVER_CONFIG ?? argument ?? '{}';
  const config = JSON.parse(given.startsWith('@') ? readFileSync(given.slice(1), 'utf8') : given);
  const unknown = Object.keys(config).filter((key) => !known.includes(key));
  if (unknown.length > 0) {
    console.error(`unknown configuration key ${unknown.join(', ')}; known: ${known.join(', ')}`);
    process.exit(1);
  }
  return config;
}

/**
 * Listen on 127.0.0.1, on PORT (0, the default, takes a free one), then ask `makeHandler` for the
 * request handler of the base URL that came out of it. The order matters: an issuer has to be known
 * before the server is configured, and asking the system for the port leaves no moment in which
 * another process could take it.
 */
export function serve(makeHandler) {
  const port = Number(process.env.PORT ?? process.argv[3] ?? 0);
  const server = createServer();
  server.on('error', (error) => {
    console.error(`cannot listen on 127.0.0.1:${port}: ${error.message}`);
    process.exit(1);
  });
  server.listen(port, '127.0.0.1', async () => {
    const base = `http://127.0.0.1:${server.address().port}`;
    try {
      server.on('request', await makeHandler(base));
    } catch (error) {
      console.error(error);
      process.exit(1);
    }
    console.log(`ready ${base}`);
  });

  const stop = () => process.exit(0);
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);
  // A test run that is killed cannot stop its servers; the pipe it held closes all the same.
  if (process.env.SERVER_EXIT_WITH_STDIN === '1') {
    process.stdin.on('end', stop).on('error', stop).resume();
  }
}
