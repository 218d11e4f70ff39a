// The checks that every client goes through, for those written for Node.js; README.md beside it says what each asks.
// A client's program derives from Client, says in its methods how the client does each thing, and calls run().

'use strict'

const { execFile } = require('node:child_process')
const { isDeepStrictEqual, promisify } = require('node:util')

const CODECS = ['none', 'gzip', 'snappy', 'lz4', 'zstd']
const DEADLINE_MS = 60_000
const WINDOW = 100
const PER_CODEC = 200
const SHARED_PARTITIONS = 3
const GROUP_PARTITIONS = 6
const WAVE = 300
const RESUME_RECORDS = 300
const RESUME_FIRST = 120
const TIMED_RECORDS = 100
const TIMED_STEP_MS = 1000
const KILL_AFTER = 1000

// The client has no way to do this; why.
class Cannot extends Error {}

function expect(condition, otherwise) {
  if (!condition) throw new Error(otherwise)
}

function expectEqual(actual, expected, what) {
  expect(isDeepStrictEqual(actual, expected), `${what}: ${JSON.stringify(actual)} instead of ${JSON.stringify(expected)}`)
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

async function waitUntil(what, condition) {
  const until = Date.now() + DEADLINE_MS
  while (!(await condition())) {
    expect(Date.now() < until, `waited ${DEADLINE_MS / 1000} s for ${what}`)
    await pause(50)
  }
}

const upTo = (first, end) => Array.from({ length: end - first }, (_, index) => first + index)
const numbered = (count, partitions, first = 0) =>
  upTo(first, first + count).map((number) => ({ partition: number % partitions, key: `key-${number}`, value: `${number}`, headers: {} }))
const numbers = (records) => records.map((record) => Number(record.value))
const ascending = (all) => [...all].sort((a, b) => a - b)

function sharedRecord(codec, number) {
  const headers = { codec, empty: '', number: `${number}` }
  return { partition: number % SHARED_PARTITIONS, key: `key-${number}`, value: `${codec} ${number} ${'helix '.repeat(20)}`, headers }
}

// All that was written with the codecs is there once, unchanged, in its partition's order.
function verifyShared(records, codecs) {
  const written = new Map(codecs.flatMap((codec) => upTo(0, PER_CODEC).map((number) => sharedRecord(codec, number))).map((one) => [one.value, one]))
  const last = {}
  for (const record of records) {
    const expected = written.get(record.value)
    expect(expected && expected.partition === record.partition, `${record.value} is there twice or was not written`)
    written.delete(record.value)
    expectEqual(record.key, expected.key, `key of ${record.value}`)
    expectEqual(Object.entries(record.headers), Object.entries(expected.headers), `headers of ${record.value}`)
    const [codec, number] = record.value.split(' ')
    expect(Number(number) > (last[codec + record.partition] ?? -1), `${record.value} is out of order`)
    last[codec + record.partition] = Number(number)
  }
  expect(written.size === 0, `${written.size} of ${codecs.length * PER_CODEC} records are missing`)
}

// What a client's program provides. Records are {partition, offset, key, value, headers, timestamp}, the last a number of ms,
// the others strings. Members are {records, owned(), failure, leave()}.
class Client {
  codecs = CODECS
  idempotent = true

  async connect() {}
  async createTopic(topic, partitions) { throw new Cannot('the client has no createTopic') }
  // Undefined if there is no such topic.
  async partitionCount(topic) { throw new Cannot('the client describes no topics') }
  async leader(topic, partition) { throw new Cannot('the client tells no leader') }
  async addPartitions(topic, total) { throw new Cannot('the client adds no partitions') }
  async deleteTopic(topic) { throw new Cannot('the client deletes no topics') }
  async deleteRecords(topic, partition, before) { throw new Cannot('the client deletes no records') }
  async topicConfig(topic, name) { throw new Cannot('the client describes no configs') }
  async setTopicConfig(topic, name, value) { throw new Cannot('the client alters no configs') }
  async groups() { throw new Cannot('the client lists no groups') }
  async describeGroup(group) { throw new Cannot('the client describes no groups') }
  async deleteGroup(group) { throw new Cannot('the client deletes no groups') }
  // All are acknowledged when it returns.
  async produce(topic, records, codec) { throw new Cannot('the client produces nothing') }
  async produceIdempotent(topic, records) { throw new Cannot('the client has no idempotent producer') }
  // Writes numbers 0, 1, ... into partition 0 while going(), and tells which are acknowledged.
  async produceWhile(topic, going, acknowledged) { throw new Cannot('the client produces nothing') }
  async read(topic) { throw new Cannot('the client reads nothing') }
  // The first record of partition 0 at or after the time, found by seeking.
  async readFromTime(topic, timestamp) { throw new Cannot('the client finds no offsets by time') }
  async member(topic, group) { throw new Cannot('the client has no groups') }
  // At least count as a group's only member; commits exactly what it returns.
  async take(topic, group, count) { throw new Cannot('the client has no groups') }
}

class Checks {
  failed = false

  constructor(client, prefix) {
    this.client = client
    this.prefix = prefix
  }

  async check(name, body) {
    try {
      await body()
      console.log(`ok ${name}`)
    } catch (error) {
      if (error instanceof Cannot) return console.log(`n/a ${name}: ${error.message}`)
      console.error(error)
      this.failed = true
      console.log(`FAIL ${name}: ${String(error).replaceAll('\n', ' ')}`)
    }
  }

  awaitPartitions(topic, count) {
    return waitUntil(`${topic} to have ${count} partitions`, async () => (await this.client.partitionCount(topic)) === count)
  }

  async topic(name, partitions) {
    const topic = `${this.prefix}-${name}`
    await this.client.createTopic(topic, partitions)
    await this.awaitPartitions(topic, partitions)
    return topic
  }

  async all() {
    await this.topics()
    await this.codecs()
    await this.check('idempotent', () => this.idempotent())
    await this.check('seek-time', () => this.seekTime())
    await this.check('group-rebalance', () => this.groupRebalance())
    await this.check('commit-resume', () => this.commitResume())
    await this.groups()
    await this.check('leader-kill', () => this.leaderKill())
  }

  async topics() {
    const client = this.client
    const topic = `${this.prefix}-admin`
    await this.check('create-topic', () => client.createTopic(topic, 2))
    await this.check('describe-topic', () => this.awaitPartitions(topic, 2))
    await this.check('add-partitions', async () => {
      await client.addPartitions(topic, 4)
      await this.awaitPartitions(topic, 4)
    })
    await this.check('describe-config', async () => {
      expectEqual(await client.topicConfig(topic, 'cleanup.policy'), 'delete', 'cleanup.policy')
    })
    await this.check('alter-config', async () => {
      await client.setTopicConfig(topic, 'retention.ms', '3600000')
      await waitUntil('retention.ms to be 3600000', async () => (await client.topicConfig(topic, 'retention.ms')) === '3600000')
    })
    await this.check('delete-records', async () => {
      await client.produce(topic, numbered(20, 1), 'none')
      await client.deleteRecords(topic, 0, 12)
      expectEqual(numbers(await client.read(topic)), upTo(12, 20), 'what is left')
    })
    await this.check('delete-topic', async () => {
      await client.deleteTopic(topic)
      await this.awaitPartitions(topic, undefined)
    })
  }

  async codecs() {
    const done = []
    let shared
    for (const codec of CODECS) {
      await this.check(`produce-${codec}`, async () => {
        if (!this.client.codecs.includes(codec)) throw new Cannot('the client has no such codec')
        shared ??= await this.topic('shared', SHARED_PARTITIONS)
        await this.client.produce(shared, upTo(0, PER_CODEC).map((number) => sharedRecord(codec, number)), codec)
        done.push(codec)
      })
    }
    await this.check('headers', async () => verifyShared(await this.client.read(shared), done))
  }

  async idempotent() {
    if (!this.client.idempotent) throw new Cannot('the client has no idempotent producer')
    const topic = await this.topic('idempotent', 1)
    await this.client.produceIdempotent(topic, numbered(1000, 1))
    expectEqual(numbers(await this.client.read(topic)), upTo(0, 1000), 'numbers')
  }

  async seekTime() {
    const topic = await this.topic('timed', 1)
    const start = Date.now() - TIMED_RECORDS * TIMED_STEP_MS
    const records = numbered(TIMED_RECORDS, 1).map((record, number) => ({ ...record, timestamp: start + number * TIMED_STEP_MS }))
    await this.client.produce(topic, records, 'none')
    const found = await this.client.readFromTime(topic, start + 50 * TIMED_STEP_MS + 1)
    expectEqual([Number(found.offset), found.value], [51, '51'], 'the first record after the time')
    expectEqual(found.timestamp, start + 51 * TIMED_STEP_MS, 'its timestamp')
  }

  async groupRebalance() {
    const topic = await this.topic('group', GROUP_PARTITIONS)
    const group = `${this.prefix}-group`
    const members = []
    const everyone = []
    const join = async () => {
      members.push(await this.client.member(topic, group))
      everyone.push(members.at(-1))
    }
    const settle = () => waitUntil(`${members.length} members to share ${GROUP_PARTITIONS} partitions`, () => {
      for (const member of members) if (member.failure) throw member.failure
      const owned = members.map((member) => member.owned())
      return owned.every((its) => its.length) && isDeepStrictEqual(ascending(owned.flat()), upTo(0, GROUP_PARTITIONS))
    })
    const wave = async (first) => {
      await this.client.produce(topic, numbered(WAVE, GROUP_PARTITIONS, first), 'none')
      await waitUntil(`${first + WAVE} records`, () => new Set(everyone.flatMap((member) => numbers(member.records))).size === first + WAVE)
    }
    try {
      await join()
      await join()
      await settle()
      await wave(0)
      await join()
      await settle()
      await wave(WAVE)
      await members.shift().leave()
      await settle()
      await wave(2 * WAVE)
      for (const member of members) expect(numbers(member.records).some((number) => number >= 2 * WAVE), 'a member got nothing')
    } finally {
      await Promise.all(members.map((member) => member.leave()))
    }
  }

  async commitResume() {
    const topic = await this.topic('resume', SHARED_PARTITIONS)
    const group = `${this.prefix}-resume`
    await this.client.produce(topic, numbered(RESUME_RECORDS, SHARED_PARTITIONS), 'none')
    const first = await this.client.take(topic, group, RESUME_FIRST)
    expect(first.length < RESUME_RECORDS, 'the first member took everything')
    const rest = await this.client.take(topic, group, RESUME_RECORDS - first.length)
    expectEqual(ascending(numbers([...first, ...rest])), upTo(0, RESUME_RECORDS), 'numbers')
  }

  async groups() {
    const client = this.client
    const group = `${this.prefix}-resume`
    const described = async (state, members) => isDeepStrictEqual(await client.describeGroup(group), { state, members })
    await this.check('list-groups', async () => expect((await client.groups()).includes(group), `${group} is not listed`))
    await this.check('describe-group', async () => {
      await waitUntil('the group to be empty', () => described('Empty', 0))
      const member = await client.member(group, group)
      try {
        await waitUntil('one member in a stable group', () => described('Stable', 1))
      } finally {
        await member.leave()
      }
    })
    await this.check('delete-group', async () => {
      await client.deleteGroup(group)
      expect(!(await client.groups()).includes(group), `${group} is still listed`)
    })
  }

  async leaderKill() {
    const control = process.env.HELIX_CLIENTS_CONTROL
    if (!control) throw new Cannot('no cluster whose nodes may be killed')
    const topic = await this.topic('kill', 1)
    const acknowledged = []
    let going = true
    let ended = false
    const producer = this.client.produceWhile(topic, () => going, (number) => acknowledged.push(number))
    producer.then(() => (ended = true), () => (ended = true))
    const more = () => {
      const enough = acknowledged.length + KILL_AFTER
      return waitUntil(`${enough} acknowledged records`, () => ended || acknowledged.length >= enough)
    }
    await more()
    const leader = String(await this.client.leader(topic, 0))
    const order = (what) => promisify(execFile)(control, [what, leader], { timeout: DEADLINE_MS })
    await order('kill')
    try {
      await more()
    } finally {
      going = false
      await order('run')
    }
    await producer
    const read = numbers(await this.client.read(topic))
    const found = new Set(read)
    const lost = acknowledged.filter((number) => !found.has(number))
    expect(lost.length === 0, `${lost.length} of ${acknowledged.length} acknowledged records are lost`)
    if (this.client.idempotent) expectEqual(read, ascending(found), 'what an idempotent producer wrote')
  }
}

async function run(name, version, makeClient) {
  const [command, bootstrap, runName, ...written] = process.argv.slice(2)
  console.log(`version ${version}`)
  const client = makeClient(bootstrap.split(','))
  await client.connect()
  const checks = new Checks(client, `${runName}-${name}`)
  if (command === 'check') await checks.all()
  for (const [writer, codecs] of written.map((argument) => argument.split('='))) {
    await checks.check(`read-${writer}`, async () => verifyShared(await client.read(`${runName}-${writer}-shared`), codecs.split(',')))
  }
  // What a failed client left running must not keep the process alive.
  process.exit(checks.failed ? 1 : 0)
}

module.exports = { Cannot, Client, DEADLINE_MS, WINDOW, expect, run, upTo, waitUntil }
