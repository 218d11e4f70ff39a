// KafkaJS, with the codecs that it is given: kafkajs-snappy, kafkajs-lz4, and Zstandard of @mongodb-js/zstd.

'use strict'

const harness = require('../common/harness.js')
const { CompressionCodecs, CompressionTypes, ConfigResourceTypes, Kafka, logLevel, Partitioners } = require('kafkajs')
const LZ4 = require('kafkajs-lz4')
const snappy = require('kafkajs-snappy')
const zstd = require('@mongodb-js/zstd')

CompressionCodecs[CompressionTypes.Snappy] = snappy
CompressionCodecs[CompressionTypes.LZ4] = new LZ4().codec
CompressionCodecs[CompressionTypes.ZSTD] = () => ({ compress: (encoder) => zstd.compress(encoder.buffer), decompress: zstd.decompress })

const compressions = { none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.Snappy, lz4: CompressionTypes.LZ4, zstd: CompressionTypes.ZSTD }

// It has no consumer without a group: what only reads is in a group of its own.
let readers = 0

function recordOf({ partition, message }) {
  const headers = Object.fromEntries(Object.entries(message.headers).map(([key, value]) => [key, value.toString()]))
  return { partition, offset: message.offset, key: message.key?.toString(), value: message.value.toString(), headers, timestamp: Number(message.timestamp) }
}

class KafkaJs extends harness.Client {
  constructor(brokers) {
    super()
    // The five retries that it makes by default are over before there is another leader.
    const retry = { retries: 30, maxRetryTime: 2000 }
    this.kafka = new Kafka({ brokers, clientId: 'checks', logLevel: logLevel.ERROR, retry })
    this.admin = this.kafka.admin()
  }

  connect() {
    return this.admin.connect()
  }

  async createTopic(topic, numPartitions) {
    harness.expect(await this.admin.createTopics({ waitForLeaders: false, topics: [{ topic, numPartitions, replicationFactor: -1 }] }), `${topic} was not created`)
  }

  // Asked for a topic that there isn't, it would have the broker create it.
  async describe(topic) {
    return (await this.admin.fetchTopicMetadata()).topics.find((one) => one.name === topic)?.partitions
  }

  async partitionCount(topic) {
    return (await this.describe(topic))?.length
  }

  async leader(topic, partition) {
    return (await this.describe(topic)).find((one) => one.partitionId === partition).leader
  }

  addPartitions(topic, count) {
    return this.admin.createPartitions({ topicPartitions: [{ topic, count }] })
  }

  deleteTopic(topic) {
    return this.admin.deleteTopics({ topics: [topic] })
  }

  deleteRecords(topic, partition, before) {
    return this.admin.deleteTopicRecords({ topic, partitions: [{ partition, offset: `${before}` }] })
  }

  async topicConfig(topic, name) {
    const resources = [{ type: ConfigResourceTypes.TOPIC, name: topic, configNames: [name] }]
    return (await this.admin.describeConfigs({ resources, includeSynonyms: false })).resources[0].configEntries[0].configValue
  }

  setTopicConfig(topic, name, value) {
    return this.admin.alterConfigs({ validateOnly: false, resources: [{ type: ConfigResourceTypes.TOPIC, name: topic, configEntries: [{ name, value }] }] })
  }

  async groups() {
    return (await this.admin.listGroups()).groups.map((group) => group.groupId)
  }

  async describeGroup(group) {
    const [found] = (await this.admin.describeGroups([group])).groups
    return { state: found.state, members: found.members.length }
  }

  deleteGroup(group) {
    return this.admin.deleteGroups([group])
  }

  async producer(settings = {}) {
    const producer = this.kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner, metadataMaxAge: 2000, ...settings })
    await producer.connect()
    return producer
  }

  async produce(topic, records, codec, settings) {
    const producer = await this.producer(settings)
    const messages = records.map((record) => ({ ...record, timestamp: record.timestamp && `${record.timestamp}` }))
    await producer.send({ topic, messages, acks: -1, compression: compressions[codec] })
    await producer.disconnect()
  }

  produceIdempotent(topic, records) {
    return this.produce(topic, records, 'none', { idempotent: true, maxInFlightRequests: 1 })
  }

  async produceWhile(topic, going, acknowledged) {
    const producer = await this.producer({ idempotent: true, maxInFlightRequests: 1 })
    for (let first = 0; going(); first += harness.WINDOW) {
      const batch = harness.upTo(first, first + harness.WINDOW)
      await producer.send({ topic, acks: -1, messages: batch.map((number) => ({ partition: 0, value: `${number}` })) })
      batch.forEach(acknowledged)
    }
    await producer.disconnect()
  }

  async consumer(topic, groupId, run, onJoin = () => {}) {
    const consumer = this.kafka.consumer({ groupId, metadataMaxAge: 2000, maxWaitTimeInMs: 200, heartbeatInterval: 500 })
    await consumer.connect()
    await consumer.subscribe({ topics: [topic], fromBeginning: true })
    const crash = new Promise((_, reject) => consumer.on(consumer.events.CRASH, ({ payload }) => reject(payload.error)))
    consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => onJoin(payload.memberAssignment[topic] ?? []))
    // It is looked at where it is awaited; it must not end the process before.
    crash.catch(() => {})
    await consumer.run(run)
    return { consumer, crash }
  }

  async read(topic) {
    const unread = new Map((await this.admin.fetchTopicOffsets(topic)).filter(({ low, high }) => low !== high).map(({ partition, high }) => [partition, Number(high)]))
    const records = []
    const eachMessage = async (one) => {
      records.push(recordOf(one))
      if (Number(one.message.offset) + 1 >= unread.get(one.partition)) unread.delete(one.partition)
    }
    const { consumer, crash } = await this.consumer(topic, `${topic}-reader-${process.pid}-${readers++}`, { autoCommit: false, eachMessage })
    await Promise.race([harness.waitUntil(`the end of ${topic}`, () => unread.size === 0), crash])
    await consumer.disconnect()
    return records
  }

  async readFromTime(topic, timestamp) {
    const records = []
    const [{ offset }] = await this.admin.fetchTopicOffsetsByTimestamp(topic, timestamp)
    // What comes before the seek takes effect is none of what was asked for.
    const eachMessage = async (one) => Number(one.message.offset) >= Number(offset) && records.push(recordOf(one))
    const { consumer, crash } = await this.consumer(topic, `${topic}-reader-${process.pid}-${readers++}`, { autoCommit: false, eachMessage })
    consumer.seek({ topic, partition: 0, offset })
    await Promise.race([harness.waitUntil('a record', () => records.length), crash])
    await consumer.disconnect()
    return records[0]
  }

  async member(topic, group) {
    const member = { records: [], partitions: [], owned: () => member.partitions }
    const eachMessage = async (one) => { member.records.push(recordOf(one)) }
    const { consumer, crash } = await this.consumer(topic, group, { eachMessage }, (partitions) => (member.partitions = partitions))
    crash.catch((error) => (member.failure = error))
    member.leave = () => consumer.disconnect()
    return member
  }

  async take(topic, group, count) {
    const records = []
    const eachMessage = async (one) => { if (records.length < count) records.push(recordOf(one)) }
    const { consumer, crash } = await this.consumer(topic, group, { autoCommit: false, eachMessage })
    await Promise.race([harness.waitUntil(`${count} records of ${topic} in group ${group}`, () => records.length >= count), crash])
    const next = new Map(records.map((record) => [record.partition, `${Number(record.offset) + 1}`]))
    await consumer.commitOffsets([...next].map(([partition, offset]) => ({ topic, partition, offset })))
    await consumer.disconnect()
    return records
  }
}

harness.run('kafkajs', require('kafkajs/package.json').version, (brokers) => new KafkaJs(brokers))
