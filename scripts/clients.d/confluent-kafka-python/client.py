"""confluent-kafka for Python: librdkafka beneath."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "common"))
import confluent_kafka
from confluent_kafka import Consumer, ConsumerGroupState, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic, ResourceType

import harness
from harness import DEADLINE_S, WINDOW, Record, expect, wait_until

POLL_S = 0.2


def record_of(message):
    if message.error():
        raise KafkaException(message.error())
    _, timestamp = message.timestamp()
    return Record(message.partition(), message.key(), message.value(), message.headers() or [], timestamp, message.offset())


def result(futures):
    return next(iter(futures.values())).result(DEADLINE_S)


class ConfluentKafka(harness.Client):
    def __init__(self, bootstrap):
        super().__init__(bootstrap)
        self.admin = AdminClient(self.settings())

    def settings(self, **settings):
        # A kept connection error is no news here: the client reconnects by itself.
        return {"bootstrap.servers": self.bootstrap, "log_level": 2} | {key.replace("_", "."): value for key, value in settings.items()}

    def create_topic(self, topic, partitions):
        result(self.admin.create_topics([NewTopic(topic, partitions, -1)]))

    def describe(self, topic):
        try:
            return result(self.admin.describe_topics(confluent_kafka.TopicCollection([topic]))).partitions
        except KafkaException as error:
            if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                return None
            raise

    def partition_count(self, topic):
        partitions = self.describe(topic)
        return partitions and len(partitions)

    def leader(self, topic, partition):
        return next(one.leader.id for one in self.describe(topic) if one.id == partition)

    def add_partitions(self, topic, total):
        result(self.admin.create_partitions([NewPartitions(topic, total)]))

    def delete_topic(self, topic):
        result(self.admin.delete_topics([topic]))

    def delete_records(self, topic, partition, before):
        result(self.admin.delete_records([TopicPartition(topic, partition, before)]))

    def topic_config(self, topic, name):
        return result(self.admin.describe_configs([ConfigResource(ResourceType.TOPIC, topic)]))[name].value

    def set_topic_config(self, topic, name, value):
        entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        result(self.admin.incremental_alter_configs([ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])]))

    def groups(self):
        return [group.group_id for group in self.admin.list_consumer_groups().result(DEADLINE_S).valid]

    def describe_group(self, group):
        found = result(self.admin.describe_consumer_groups([group]))
        return {ConsumerGroupState.STABLE: "Stable", ConsumerGroupState.EMPTY: "Empty"}.get(found.state), len(found.members)

    def delete_group(self, group):
        result(self.admin.delete_consumer_groups([group]))

    def produce(self, topic, records, codec, **settings):
        producer, errors = Producer(self.settings(compression_type=codec, linger_ms=5, **settings)), []
        for one in records:
            producer.produce(topic, one.value, one.key, one.partition, timestamp=one.timestamp or 0, headers=one.headers,
                             on_delivery=lambda error, _: error and errors.append(error))
        expect(producer.flush(DEADLINE_S) == 0, f"waited {DEADLINE_S} s for acknowledgements")
        expect(not errors, errors)

    def produce_idempotent(self, topic, records):
        self.produce(topic, records, "none", enable_idempotence=True)

    def produce_while(self, topic, going, acknowledged):
        producer, number, errors = Producer(self.settings(enable_idempotence=True)), 0, []

        def delivered(error, message):
            if error:
                errors.append(error)
            else:
                acknowledged.append(int(message.value()))

        while going() and not errors:
            if len(producer) < WINDOW:
                producer.produce(topic, b"%d" % number, partition=0, on_delivery=delivered)
                number += 1
                producer.poll(0)
            else:
                producer.poll(POLL_S)
        expect(producer.flush(DEADLINE_S) == 0, f"waited {DEADLINE_S} s for acknowledgements")
        expect(not errors, errors)

    def consumer(self, **settings):
        return Consumer(self.settings(**{"group_id": "unused", "auto_offset_reset": "earliest"} | settings))

    def poll(self, consumer, most=500):
        return [record_of(message) for message in consumer.consume(most, POLL_S)]

    def read(self, topic):
        consumer, records = self.consumer(enable_auto_commit=False), []
        partitions = [TopicPartition(topic, number, confluent_kafka.OFFSET_BEGINNING) for number in range(self.partition_count(topic))]
        missing = {}
        for one in partitions:
            low, high = consumer.get_watermark_offsets(one, timeout=DEADLINE_S)
            missing[one.partition] = high if high > low else 0
        consumer.assign(partitions)

        def at_end():
            records.extend(self.poll(consumer))
            for record in records:
                if record.offset + 1 >= missing[record.partition]:
                    missing[record.partition] = 0
            return not any(missing.values())

        wait_until(f"the end of {topic}", at_end)
        consumer.close()
        return records

    def read_from_time(self, topic, timestamp):
        consumer = self.consumer(enable_auto_commit=False)
        consumer.assign(consumer.offsets_for_times([TopicPartition(topic, 0, timestamp)], timeout=DEADLINE_S))
        first = wait_until("a record", lambda: self.poll(consumer))[0]
        consumer.close()
        return first

    def member(self, topic, group):
        consumer = self.consumer(group_id=group)
        consumer.subscribe([topic])
        return harness.Member(lambda: self.poll(consumer), lambda: [one.partition for one in consumer.assignment()], consumer.close)

    def take(self, topic, group, count):
        consumer, records = self.consumer(group_id=group, enable_auto_commit=False), []
        consumer.subscribe([topic])

        def enough():
            records.extend(self.poll(consumer, 20))
            return len(records) >= count

        wait_until(f"{count} records of {topic} in group {group}", enough)
        consumer.commit(asynchronous=False)
        consumer.close()
        return records


harness.run("confluent-kafka-python", f"{confluent_kafka.__version__} (librdkafka {confluent_kafka.libversion()[0]})", ConfluentKafka)
