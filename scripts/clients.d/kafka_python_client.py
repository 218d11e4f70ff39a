"""Writes numbered records and reads them back with kafka-python's default settings.

usage: kafka_python_client.py write BOOTSTRAP TOPIC COUNT
       kafka_python_client.py read BOOTSTRAP TOPIC        prints "partition offset value"
"""

import sys
import time

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

DEADLINE_S = 60


def write(bootstrap, topic, count):
    producer = KafkaProducer(bootstrap_servers=bootstrap)
    futures = [producer.send(topic, str(number).encode()) for number in range(count)]
    for future in futures:
        future.get(timeout=DEADLINE_S)
    producer.close()


def read(bootstrap, topic):
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    until = time.monotonic() + DEADLINE_S
    partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
    consumer.assign(partitions)
    consumer.seek_to_beginning(*partitions)
    ends = consumer.end_offsets(partitions)
    while any(consumer.position(one) < ends[one] for one in partitions):
        if time.monotonic() > until:
            sys.exit(f"not at the end after {DEADLINE_S} s")
        for records in consumer.poll(timeout_ms=200).values():
            for record in records:
                print(record.partition, record.offset, record.value.decode())
    consumer.close()


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        read(sys.argv[2], sys.argv[3])
