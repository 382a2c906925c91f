// Makes the page: node build.mjs OUT.html

import { readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const source = (name) => fileURLToPath(new URL(`source/${name}`, import.meta.url));
const parts = {
  name: 'only the parts of three.js that are used',
  setup: (bundler) => bundler.onResolve({ filter: /^three$/ }, () => ({ path: source('three_parts.js') })),
};
const options = { bundle: true, minify: true, write: false, charset: 'utf8', target: ['es2022', 'safari16.4'], legalComments: 'inline' };
const [script, style] = await Promise.all([
  build({ ...options, entryPoints: [source('page.js')], format: 'iife', plugins: [parts] }),
  build({ ...options, entryPoints: [source('page.css')] }),
]);
const text = (result) => result.outputFiles[0].text.trim().replaceAll('</script', '<\\/script');
const page = (await readFile(source('page.html'), 'utf8'))
  .replace('/*STYLE*/', () => text(style))
  .replace('/*SCRIPT*/', () => text(script));
await writeFile(process.argv[2], page);
