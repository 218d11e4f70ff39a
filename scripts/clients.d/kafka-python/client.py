"""kafka-python: pure Python."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "common"))
import kafka
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, NewTopic

import harness
from harness import DEADLINE_S, WINDOW, Record, wait_until

POLL_MS = 200
# A poll that ends between the two steps of joining a group leaves this client waiting for ever: it gets time enough.
GROUP_POLL_MS = 3000


def records_of(polled):
    return [Record(one.partition, one.key, one.value, one.headers, one.timestamp, one.offset)
            for messages in polled.values() for one in messages]


class KafkaPython(harness.Client):
    def __init__(self, bootstrap):
        super().__init__(bootstrap)
        self.admin = KafkaAdminClient(bootstrap_servers=bootstrap)

    def create_topic(self, topic, partitions):
        self.admin.create_topics([NewTopic(topic, partitions, -1)])

    def describe(self, topic):
        found = self.admin.describe_topics([topic])[0]
        return found["partitions"] if found["error_code"] == 0 else None

    def partition_count(self, topic):
        partitions = self.describe(topic)
        return partitions and len(partitions)

    def leader(self, topic, partition):
        return next(one["leader_id"] for one in self.describe(topic) if one["partition_index"] == partition)

    def add_partitions(self, topic, total):
        self.admin.create_partitions({topic: total})

    def delete_topic(self, topic):
        self.admin.delete_topics([topic])

    def delete_records(self, topic, partition, before):
        self.admin.delete_records({TopicPartition(topic, partition): before})

    def topic_config(self, topic, name):
        resource = ConfigResource(ConfigResourceType.TOPIC, topic, [name])
        return self.admin.describe_configs([resource], config_filter="all")["topic"][topic][name]["value"]

    def set_topic_config(self, topic, name, value):
        self.admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {name: value})])

    def groups(self):
        return [group["group_id"] for group in self.admin.list_groups()]

    def describe_group(self, group):
        found = self.admin.describe_groups([group])[group]
        return found["group_state"], len(found["members"])

    def delete_group(self, group):
        self.admin.delete_groups([group])

    def produce(self, topic, records, codec, **settings):
        compression = None if codec == "none" else codec
        producer = KafkaProducer(bootstrap_servers=self.bootstrap, compression_type=compression, acks="all", **settings)
        sent = [producer.send(topic, one.value, one.key, one.headers, one.partition, one.timestamp) for one in records]
        for future in sent:
            future.get(timeout=DEADLINE_S)
        producer.close()

    def produce_idempotent(self, topic, records):
        self.produce(topic, records, "none", enable_idempotence=True)

    def produce_while(self, topic, going, acknowledged):
        producer = KafkaProducer(bootstrap_servers=self.bootstrap, acks="all", enable_idempotence=True)
        sent = []
        while going() or sent:
            while going() and len(sent) < WINDOW:
                number = len(acknowledged) + len(sent)
                sent.append((number, producer.send(topic, b"%d" % number, partition=0)))
            number, future = sent.pop(0)
            future.get(timeout=2 * DEADLINE_S)
            acknowledged.append(number)
        producer.close()

    def consumer(self, **settings):
        return KafkaConsumer(bootstrap_servers=self.bootstrap, auto_offset_reset="earliest",
                         metadata_max_age_ms=2000, **settings)

    def read(self, topic):
        consumer, records = self.consumer(enable_auto_commit=False), []
        partitions = [TopicPartition(topic, number) for number in range(self.partition_count(topic))]
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        ends = consumer.end_offsets(partitions)

        def at_end():
            records.extend(records_of(consumer.poll(timeout_ms=POLL_MS)))
            return all(consumer.position(one) >= ends[one] for one in partitions)

        wait_until(f"the end of {topic}", at_end)
        consumer.close()
        return records

    def read_from_time(self, topic, timestamp):
        consumer, partition = self.consumer(enable_auto_commit=False), TopicPartition(topic, 0)
        consumer.assign([partition])
        consumer.seek(partition, consumer.offsets_for_times({partition: timestamp})[partition].offset)
        first = wait_until("a record", lambda: records_of(consumer.poll(timeout_ms=POLL_MS)))[0]
        consumer.close()
        return first

    def member(self, topic, group):
        consumer = self.consumer(group_id=group)
        consumer.subscribe([topic])
        return harness.Member(lambda: records_of(consumer.poll(timeout_ms=GROUP_POLL_MS)), consumer.assignment, consumer.close)

    def take(self, topic, group, count):
        consumer, records = self.consumer(group_id=group, enable_auto_commit=False, max_poll_records=20), []
        consumer.subscribe([topic])

        def enough():
            records.extend(records_of(consumer.poll(timeout_ms=GROUP_POLL_MS)))
            return len(records) >= count

        wait_until(f"{count} records of {topic} in group {group}", enough)
        consumer.commit()
        consumer.close()
        return records


harness.run("kafka-python", kafka.__version__, KafkaPython)
