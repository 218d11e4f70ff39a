"""aiokafka: asyncio. Its event loop runs in a thread of its own; the checks wait for what is done there."""

import asyncio
import sys
import threading
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "common"))
import aiokafka
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import for_code

import harness
from harness import DEADLINE_S, WINDOW, Record, wait_until

POLL_MS = 200


def records_of(polled):
    return [Record(one.partition, one.key, one.value, list(one.headers), one.timestamp, one.offset)
            for messages in polled.values() for one in messages]


def raise_errors(results):
    """results: (name, error code, ...) as in the response; this client leaves it to its user to look at them."""
    for _, code, *rest in results:
        if code:
            raise for_code(code)(*rest)


class Aiokafka(harness.Client):
    def __init__(self, bootstrap):
        super().__init__(bootstrap)
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.admin = self.made(AIOKafkaAdminClient, bootstrap_servers=bootstrap)

    def call(self, coroutine, deadline_s=DEADLINE_S):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(deadline_s)

    def made(self, kind, **settings):
        async def start():
            one = kind(**settings)
            await one.start()
            return one

        return self.call(start())

    def create_topic(self, topic, partitions):
        # It takes no -1 for the broker's default.
        replicas = min(3, len(self.call(self.admin.describe_cluster())["brokers"]))
        raise_errors(self.call(self.admin.create_topics([NewTopic(topic, partitions, replicas)])).topic_errors)

    def describe(self, topic):
        # Asked for one topic it would have the broker create it.
        found = [one for one in self.call(self.admin.describe_topics()) if one["topic"] == topic]
        return found[0]["partitions"] if found else None

    def partition_count(self, topic):
        partitions = self.describe(topic)
        return partitions and len(partitions)

    def leader(self, topic, partition):
        return next(one["leader"] for one in self.describe(topic) if one["partition"] == partition)

    def add_partitions(self, topic, total):
        raise_errors(self.call(self.admin.create_partitions({topic: NewPartitions(total)})).topic_errors)

    def delete_topic(self, topic):
        raise_errors(self.call(self.admin.delete_topics([topic])).topic_error_codes)

    def delete_records(self, topic, partition, before):
        self.call(self.admin.delete_records({TopicPartition(topic, partition): RecordsToDelete(before)}))

    def topic_config(self, topic, name):
        resource = ConfigResource(ConfigResourceType.TOPIC, topic, {name: None})
        (code, message, _, _, entries), = self.call(self.admin.describe_configs([resource]))[0].resources
        raise_errors([(topic, code, message)])
        return entries[0][1]

    def set_topic_config(self, topic, name, value):
        resource = ConfigResource(ConfigResourceType.TOPIC, topic, {name: value})
        for response in self.call(self.admin.alter_configs([resource])):
            raise_errors([(topic, code, message) for code, message, *_ in response.resources])

    def groups(self):
        return [group for group, *_ in self.call(self.admin.list_consumer_groups())]

    def describe_group(self, group):
        response = self.call(self.admin.describe_consumer_groups([group]))[0]
        code, _, state, _, _, members, *_ = response.groups[0]
        raise_errors([(group, code)])
        return state, len(members)

    def produce(self, topic, records, codec, **settings):
        compression = None if codec == "none" else codec
        producer = self.made(AIOKafkaProducer, bootstrap_servers=self.bootstrap, acks="all", compression_type=compression,
                             **settings)

        async def send():
            await asyncio.gather(*[await producer.send(topic, one.value, one.key, one.partition, one.timestamp, one.headers)
                                   for one in records])
            await producer.stop()

        self.call(send())

    def produce_idempotent(self, topic, records):
        self.produce(topic, records, "none", enable_idempotence=True)

    def produce_while(self, topic, going, acknowledged):
        producer = self.made(AIOKafkaProducer, bootstrap_servers=self.bootstrap, acks="all", enable_idempotence=True)

        async def send():
            sent = []
            while going() or sent:
                while going() and len(sent) < WINDOW:
                    number = len(acknowledged) + len(sent)
                    sent.append((number, await producer.send(topic, b"%d" % number, partition=0)))
                number, future = sent.pop(0)
                await future
                acknowledged.append(number)
            await producer.stop()

        self.call(send(), 3 * DEADLINE_S)

    def consumer(self, **settings):
        return self.made(AIOKafkaConsumer, bootstrap_servers=self.bootstrap, auto_offset_reset="earliest",
                         metadata_max_age_ms=2000, **settings)

    def in_loop(self, function, *arguments):
        """What must be called in the event loop though it is no coroutine."""

        async def call():
            return function(*arguments)

        return self.call(call())

    def poll(self, consumer):
        return records_of(self.call(consumer.getmany(timeout_ms=POLL_MS)))

    def read(self, topic):
        consumer, records = self.consumer(), []
        partitions = [TopicPartition(topic, number) for number in range(self.partition_count(topic))]
        self.in_loop(consumer.assign, partitions)
        self.call(consumer.seek_to_beginning(*partitions))
        ends = self.call(consumer.end_offsets(partitions))

        def at_end():
            records.extend(self.poll(consumer))
            return all(self.call(consumer.position(one)) >= ends[one] for one in partitions)

        wait_until(f"the end of {topic}", at_end)
        self.call(consumer.stop())
        return records

    def read_from_time(self, topic, timestamp):
        consumer, partition = self.consumer(), TopicPartition(topic, 0)
        self.in_loop(consumer.assign, [partition])
        consumer.seek(partition, self.call(consumer.offsets_for_times({partition: timestamp}))[partition].offset)
        first = wait_until("a record", lambda: self.poll(consumer))[0]
        self.call(consumer.stop())
        return first

    def group_consumer(self, topic, group, **settings):
        consumer = self.consumer(group_id=group, **settings)
        self.in_loop(consumer.subscribe, [topic])
        return consumer

    def member(self, topic, group):
        consumer = self.group_consumer(topic, group)
        return harness.Member(lambda: self.poll(consumer), consumer.assignment, lambda: self.call(consumer.stop()))

    def take(self, topic, group, count):
        consumer, records = self.group_consumer(topic, group, enable_auto_commit=False, max_poll_records=20), []

        def enough():
            records.extend(self.poll(consumer))
            return len(records) >= count

        wait_until(f"{count} records of {topic} in group {group}", enough)
        self.call(consumer.commit())
        self.call(consumer.stop())
        return records


harness.run("aiokafka", aiokafka.__version__, Aiokafka)
