// @confluentinc/kafka-javascript: librdkafka beneath, mostly through its KafkaJS-like interface.

'use strict'

const { promisify } = require('node:util')
const harness = require('../common/harness.js')
const { AdminClient, KafkaJS, librdkafkaVersion } = require('@confluentinc/kafka-javascript')
const { ConsumerGroupStates, ErrorCodes, Kafka, logLevel } = KafkaJS

const states = { [ConsumerGroupStates.STABLE]: 'Stable', [ConsumerGroupStates.EMPTY]: 'Empty' }

// Its consumer joins a group always: what only reads is in a group of its own.
let readers = 0

function recordOf({ partition, message }) {
  const headers = Object.fromEntries(Object.entries(message.headers ?? {}).map(([key, value]) => [key, value.toString()]))
  return { partition, offset: message.offset, key: message.key?.toString(), value: message.value.toString(), headers, timestamp: Number(message.timestamp) }
}

class Confluent extends harness.Client {
  constructor(brokers) {
    super()
    this.kafka = new Kafka({ kafkaJS: { brokers, logLevel: logLevel.NOTHING } })
    this.admin = this.kafka.admin()
    this.plainAdmin = AdminClient.create({ 'bootstrap.servers': brokers.join(), log_level: 2 })
  }

  connect() {
    return this.admin.connect()
  }

  async createTopic(topic, numPartitions) {
    harness.expect(await this.admin.createTopics({ topics: [{ topic, numPartitions, replicationFactor: -1 }] }), `${topic} was not created`)
  }

  async describe(topic) {
    try {
      return (await this.admin.fetchTopicMetadata({ topics: [topic] }))[0].partitions
    } catch (error) {
      if (error.code !== ErrorCodes.ERR_UNKNOWN_TOPIC_OR_PART) throw error
    }
  }

  async partitionCount(topic) {
    return (await this.describe(topic))?.length
  }

  async leader(topic, partition) {
    return (await this.describe(topic)).find((one) => one.partitionId === partition).leader
  }

  addPartitions(topic, total) {
    return promisify((done) => this.plainAdmin.createPartitions(topic, total, done))()
  }

  deleteTopic(topic) {
    return this.admin.deleteTopics({ topics: [topic] })
  }

  deleteRecords(topic, partition, before) {
    return this.admin.deleteTopicRecords({ topic, partitions: [{ partition, offset: `${before}` }] })
  }

  async groups() {
    return (await this.admin.listGroups()).groups.map((group) => group.groupId)
  }

  async describeGroup(group) {
    const [found] = (await this.admin.describeGroups([group])).groups
    return { state: states[found.state], members: found.members.length }
  }

  deleteGroup(group) {
    return this.admin.deleteGroups([group])
  }

  async producer(settings = {}) {
    const producer = this.kafka.producer({ kafkaJS: { acks: -1, ...settings } })
    await producer.connect()
    return producer
  }

  async produce(topic, records, codec, settings = {}) {
    const producer = await this.producer({ compression: codec, ...settings })
    const messages = records.map((record) => ({ ...record, timestamp: record.timestamp && `${record.timestamp}` }))
    await producer.send({ topic, messages })
    await producer.disconnect()
  }

  produceIdempotent(topic, records) {
    return this.produce(topic, records, 'none', { idempotent: true })
  }

  async produceWhile(topic, going, acknowledged) {
    const producer = await this.producer({ idempotent: true })
    for (let first = 0; going(); first += harness.WINDOW) {
      const batch = harness.upTo(first, first + harness.WINDOW)
      await producer.send({ topic, messages: batch.map((number) => ({ partition: 0, value: `${number}` })) })
      batch.forEach(acknowledged)
    }
    await producer.disconnect()
  }

  async consumer(topic, groupId, settings, eachMessage) {
    const consumer = this.kafka.consumer({ kafkaJS: { groupId, fromBeginning: true, maxWaitTimeInMs: 200, ...settings } })
    await consumer.connect()
    await consumer.subscribe({ topics: [topic] })
    await consumer.run({ eachMessage: async (one) => eachMessage(recordOf(one)) })
    return consumer
  }

  reader(topic, eachMessage) {
    return this.consumer(topic, `${topic}-reader-${process.pid}-${readers++}`, { autoCommit: false }, eachMessage)
  }

  async read(topic) {
    const unread = new Map((await this.admin.fetchTopicOffsets(topic)).filter(({ low, high }) => low !== high).map(({ partition, high }) => [partition, Number(high)]))
    const records = []
    const consumer = await this.reader(topic, (record) => {
      records.push(record)
      if (Number(record.offset) + 1 >= unread.get(record.partition)) unread.delete(record.partition)
    })
    await harness.waitUntil(`the end of ${topic}`, () => unread.size === 0)
    await consumer.disconnect()
    return records
  }

  async readFromTime(topic, timestamp) {
    const [{ offset }] = await this.admin.fetchTopicOffsetsByTimestamp(topic, timestamp)
    const records = []
    let sought = false
    const consumer = await this.reader(topic, (record) => sought && records.push(record))
    // It seeks only in what it owns.
    await harness.waitUntil('an assignment', () => consumer.assignment().length)
    consumer.seek({ topic, partition: 0, offset })
    sought = true
    await harness.waitUntil('a record', () => records.length)
    await consumer.disconnect()
    return records.find((record) => Number(record.offset) >= Number(offset))
  }

  async member(topic, group) {
    const member = { records: [] }
    const consumer = await this.consumer(topic, group, {}, (record) => member.records.push(record))
    member.owned = () => consumer.assignment().map((one) => one.partition)
    member.leave = () => consumer.disconnect()
    return member
  }

  async take(topic, group, count) {
    const records = []
    const consumer = await this.consumer(topic, group, { autoCommit: false }, (record) => { if (records.length < count) records.push(record) })
    await harness.waitUntil(`${count} records of ${topic} in group ${group}`, () => records.length >= count)
    const next = new Map(records.map((record) => [record.partition, `${Number(record.offset) + 1}`]))
    await consumer.commitOffsets([...next].map(([partition, offset]) => ({ topic, partition, offset })))
    await consumer.disconnect()
    return records
  }
}

const version = require('@confluentinc/kafka-javascript/package.json').version
harness.run('confluent-kafka-javascript', `${version} (librdkafka ${librdkafkaVersion})`, (brokers) => new Confluent(brokers))
