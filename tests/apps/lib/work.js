/*
 * Timers of several kinds, promises, the thread pool, a worker thread and a child process that is talked to over pipes, with
 * answers waiting in them; all of them checked. Counts in ./progress. Ends at ./stop.
 */
'use strict';
const crypto = require('crypto');
const fs = require('fs');
const path = require('path');
const zlib = require('zlib');
const { spawn } = require('child_process');
const { Worker, isMainThread, parentPort } = require('worker_threads');

if (!isMainThread) {
	parentPort.on('message', (n) => parentPort.postMessage([n, crypto.createHash('sha256').update(`${n}`).digest('hex')]));
	return;
}

const errors = [];
const counts = { ticks: 0, delays: 0, pool: 0, worker: 0, child: 0 };
let stopping = false;

function error(text) {
	if (errors.length < 20)
		errors.push(text);
}

/* Timers of one delay come in the order in which they were started, and what was queued comes before them. */
const interval = setInterval(() => {
	const tick = ++counts.ticks;
	let order = '';
	setTimeout(() => { order += 'first, '; }, 4);
	setTimeout(() => {
		if (order !== 'microtask, first, ')
			error(`tick ${tick}: the second timer comes after ${order}`);
	}, 4);
	queueMicrotask(() => { order += 'microtask, '; });
}, 7);

/* A delay is never shorter than it should be; the clock of timers counts in ms. */
async function delays() {
	while (!stopping) {
		const start = process.hrtime.bigint();
		await new Promise((done) => { setTimeout(done, 10); });
		const took = Number(process.hrtime.bigint() - start) / 1e6;
		if (took < 9)
			error(`10 ms took ${took} ms`);
		counts.delays++;
	}
}

/* Threads of the pool: compress, restore, compare. */
async function pool(seed) {
	const data = Buffer.alloc(200000, `some text ${seed} `);
	const sum = crypto.createHash('sha1').update(data).digest('hex');
	while (!stopping) {
		const packed = await new Promise((done, failed) => zlib.deflate(data, (e, r) => (e ? failed(e) : done(r))));
		const same = await new Promise((done, failed) => zlib.inflate(packed, (e, r) => (e ? failed(e) : done(r))));
		if (crypto.createHash('sha1').update(same).digest('hex') !== sum)
			error(`round ${counts.pool} of the pool is damaged`);
		counts.pool++;
	}
}

function talkToWorker() {
	const worker = new Worker(__filename);
	let sent = 0;
	worker.on('error', (e) => error(`the worker: ${e}`));
	worker.on('message', ([n, hash]) => {
		if (n !== counts.worker || hash !== crypto.createHash('sha256').update(`${n}`).digest('hex'))
			error(`the worker answers ${n} ${hash} to ${counts.worker}`);
		counts.worker++;
		if (stopping)
			worker.terminate();
		else
			worker.postMessage(++sent);
	});
	worker.postMessage(sent);
}

/* Lines go to a child and come back; many are under way at any time. */
function talkToChild() {
	const child = spawn('cat', [], { stdio: ['pipe', 'pipe', 'inherit'] });
	let sent = 0, rest = '';
	const send = () => { while (sent < counts.child + 200) child.stdin.write(`line ${sent++}\n`); };
	child.stdout.on('data', (chunk) => {
		const lines = (rest + chunk).split('\n');
		rest = lines.pop();
		for (const line of lines) {
			if (line !== `line ${counts.child}`)
				error(`the child answers ${line} to line ${counts.child}`);
			counts.child++;
		}
		setTimeout(stopping ? () => child.stdin.end() : send, 1);
	});
	child.on('exit', (code, signal) => {
		if (!stopping || code !== 0)
			error(`the child ended with ${code}, ${signal}`);
	});
	send();
}

delays();
pool(1);
pool(2);
talkToWorker();
talkToChild();

const report = setInterval(() => {
	fs.writeFileSync('progress.tmp', `${Object.values(counts).join(' ')}\n`);
	fs.renameSync('progress.tmp', 'progress');
	if (!fs.existsSync('stop') && !errors.length)
		return;
	stopping = true;
	clearInterval(interval);
	clearInterval(report);
}, 20);

process.on('exit', () => console.log([...errors, errors.length ? 'FAIL' : 'PASS'].join('\n')));
