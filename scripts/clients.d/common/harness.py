"""The checks that every client goes through, for those written in Python; README.md beside it says what each asks.

A client's program derives from Client, says in its methods how the client does each thing, and calls run().
"""

import os
import subprocess
import sys
import threading
import time
import traceback
from collections import namedtuple

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
DEADLINE_S = 60
PER_CODEC = 200
SHARED_PARTITIONS = 3
GROUP_PARTITIONS = 6
WAVE = 300
RESUME_RECORDS = 300
RESUME_FIRST = 120
TIMED_RECORDS = 100
TIMED_STEP_MS = 1000
KILL_AFTER = 1000
WINDOW = 100

# What is written (offset: None), and what is read. headers: [(str, bytes)]; timestamp: ms, None for now.
Record = namedtuple("Record", "partition key value headers timestamp offset", defaults=([], None, None))


class CannotDo(Exception):
    """The client has no way to do this; why."""


def expect(condition, otherwise):
    if not condition:
        raise AssertionError(otherwise)


def expect_equal(actual, expected, what):
    expect(actual == expected, f"{what}: {actual!r} instead of {expected!r}")


def wait_until(what, condition):
    until = time.monotonic() + DEADLINE_S
    while not (value := condition()):
        expect(time.monotonic() < until, f"waited {DEADLINE_S} s for {what}")
        time.sleep(0.05)
    return value


def numbered(count, partitions, first=0):
    return [Record(number % partitions, b"key-%d" % number, b"%d" % number) for number in range(first, first + count)]


def numbers(records):
    return [int(record.value) for record in records]


def shared_record(codec, number):
    headers = [("codec", codec.encode()), ("empty", b""), ("number", b"%d" % number)]
    value = b"%s %d " % (codec.encode(), number) + b"helix " * 20
    return Record(number % SHARED_PARTITIONS, b"key-%d" % number, value, headers)


def verify_shared(records, codecs):
    """All that was written with the codecs is there once, unchanged, in its partition's order."""
    written = {(record.partition, record.value): record for codec in codecs for record in
               (shared_record(codec, number) for number in range(PER_CODEC))}
    last = {}
    for record in records:
        expected = written.pop((record.partition, record.value), None)
        expect(expected, f"{record} is there twice or was not written")
        expect_equal(record.key, expected.key, f"key at {record.partition}/{record.offset}")
        expect_equal(list(record.headers), expected.headers, f"headers at {record.partition}/{record.offset}")
        codec, number = record.value.split(b" ")[:2]
        expect(int(number) > last.get((record.partition, codec), -1), f"{record} is out of order")
        last[record.partition, codec] = int(number)
    expect(not written, f"{len(written)} of {len(codecs) * PER_CODEC} records are missing")


class Member:
    """A group member in a thread of its own, the only one to touch its consumer: poll() gives records, assigned() partitions."""

    def __init__(self, poll, assigned, close):
        self.records, self.owned, self.error = [], set(), None
        self._poll, self._assigned, self._close, self._leave = poll, assigned, close, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        try:
            while not self._leave.is_set():
                self.records += self._poll()
                self.owned = set(self._assigned())
            self._close()
        except Exception as error:
            self.error = error

    def leave(self):
        self._leave.set()
        self._thread.join(DEADLINE_S)
        expect(not self._thread.is_alive(), f"waited {DEADLINE_S} s for a member to leave its group")
        if self.error:
            raise self.error


class Client:
    """What a client's program provides. A method that it leaves out is one that the client cannot do."""

    codecs = CODECS
    idempotent = True

    def __init__(self, bootstrap):
        self.bootstrap = bootstrap

    def __getattr__(self, method):
        def cannot(*_):
            raise CannotDo(f"the client has no {method}")

        return cannot

    # create_topic(topic, partitions); partition_count(topic), None if there is no such topic; leader(topic, partition)
    # add_partitions(topic, total); delete_topic(topic); delete_records(topic, partition, before)
    # topic_config(topic, name) -> str; set_topic_config(topic, name, value)
    # groups() -> [name]; describe_group(group) -> (state, member count); delete_group(group)
    # produce(topic, records, codec)                  all acknowledged when it returns
    # produce_idempotent(topic, records)
    # produce_while(topic, going, acknowledged)       numbers 0, 1, ... into partition 0 while going(); appends to acknowledged
    # read(topic) -> [Record]                         all of it, without a group
    # read_from_time(topic, timestamp) -> Record      the first of partition 0 at or after the time, found by seeking
    # member(topic, group) -> Member
    # take(topic, group, count) -> [Record]           as a group's only member: at least count, commits exactly those


class Checks:
    def __init__(self, client, name, run):
        self.client, self.prefix, self.failed = client, f"{run}-{name}", False

    def check(self, name, body):
        try:
            body()
            self.say("ok", name)
        except CannotDo as why:
            self.say("n/a", f"{name}: {why}")
        except Exception as error:
            traceback.print_exc()
            self.failed = True
            self.say("FAIL", f"{name}: {type(error).__name__} {error}".replace("\n", " "))

    def say(self, verdict, text):
        print(verdict, text, flush=True)

    def topic(self, name, partitions):
        topic = f"{self.prefix}-{name}"
        self.client.create_topic(topic, partitions)
        wait_until(f"topic {topic}", lambda: self.client.partition_count(topic) == partitions)
        return topic

    def all(self):
        self.topics()
        self.codecs()
        self.check("idempotent", self.idempotent)
        self.check("seek-time", self.seek_time)
        self.check("group-rebalance", self.group_rebalance)
        self.check("commit-resume", self.commit_resume)
        self.groups()
        self.check("leader-kill", self.leader_kill)

    def topics(self):
        client, topic = self.client, f"{self.prefix}-admin"
        self.check("create-topic", lambda: client.create_topic(topic, 2))
        self.check("describe-topic", lambda: wait_until(f"2 partitions of {topic}", lambda: client.partition_count(topic) == 2))

        def add_partitions():
            client.add_partitions(topic, 4)
            wait_until(f"4 partitions of {topic}", lambda: client.partition_count(topic) == 4)

        def describe_config():
            expect_equal(client.topic_config(topic, "cleanup.policy"), "delete", "cleanup.policy")

        def alter_config():
            client.set_topic_config(topic, "retention.ms", "3600000")
            wait_until("retention.ms to be 3600000", lambda: client.topic_config(topic, "retention.ms") == "3600000")

        def delete_records():
            client.produce(topic, numbered(20, 1), "none")
            client.delete_records(topic, 0, 12)
            expect_equal(numbers(client.read(topic)), list(range(12, 20)), "what is left")

        def delete_topic():
            client.delete_topic(topic)
            wait_until(f"{topic} to be gone", lambda: client.partition_count(topic) is None)

        self.check("add-partitions", add_partitions)
        self.check("describe-config", describe_config)
        self.check("alter-config", alter_config)
        self.check("delete-records", delete_records)
        self.check("delete-topic", delete_topic)

    def codecs(self):
        done = []

        def produce(codec):
            expect(shared, "there is no topic")
            if codec not in self.client.codecs:
                raise CannotDo("the client has no such codec")
            self.client.produce(shared, [shared_record(codec, number) for number in range(PER_CODEC)], codec)
            done.append(codec)

        def headers():
            verify_shared(self.client.read(shared), done)

        shared = None
        try:
            shared = self.topic("shared", SHARED_PARTITIONS)
        except Exception:
            traceback.print_exc()
        for codec in CODECS:
            self.check(f"produce-{codec}", lambda: produce(codec))
        self.check("headers", headers)

    def idempotent(self):
        topic = self.topic("idempotent", 1)
        self.client.produce_idempotent(topic, numbered(1000, 1))
        expect_equal(numbers(self.client.read(topic)), list(range(1000)), "numbers")

    def seek_time(self):
        topic = self.topic("timed", 1)
        start = int(time.time() * 1000) - TIMED_RECORDS * TIMED_STEP_MS
        self.client.produce(topic, [record._replace(timestamp=start + TIMED_STEP_MS * int(record.value))
                                    for record in numbered(TIMED_RECORDS, 1)], "none")
        found = self.client.read_from_time(topic, start + 50 * TIMED_STEP_MS + 1)
        expect_equal((found.offset, found.value), (51, b"51"), "the first record after the time")
        expect_equal(found.timestamp, start + 51 * TIMED_STEP_MS, "its timestamp")

    def group_rebalance(self):
        topic, group = self.topic("group", GROUP_PARTITIONS), f"{self.prefix}-group"
        members, left = [], []

        def settle(count):
            def settled():
                for member in members:
                    if member.error:
                        raise member.error
                owned = [member.owned for member in members]
                return all(owned) and sum(map(len, owned)) == GROUP_PARTITIONS == len(set().union(*owned))

            wait_until(f"{count} members to share {GROUP_PARTITIONS} partitions", settled)

        def wave(first):
            self.client.produce(topic, numbered(WAVE, GROUP_PARTITIONS, first), "none")
            wait_until(f"{first + WAVE} records", lambda: seen() >= set(range(first + WAVE)))

        def seen():
            return set(numbers(record for member in members + left for record in list(member.records)))

        members += [self.client.member(topic, group), self.client.member(topic, group)]
        try:
            settle(2)
            wave(0)
            members.append(self.client.member(topic, group))
            settle(3)
            wave(WAVE)
            left.append(members.pop(0))
            left[0].leave()
            settle(2)
            wave(2 * WAVE)
            for member in members:
                expect(any(number >= 2 * WAVE for number in numbers(member.records)), "a member got nothing")
        finally:
            for member in members:
                member.leave()

    def commit_resume(self):
        topic, group = self.topic("resume", SHARED_PARTITIONS), f"{self.prefix}-resume"
        self.client.produce(topic, numbered(RESUME_RECORDS, SHARED_PARTITIONS), "none")
        first = self.client.take(topic, group, RESUME_FIRST)
        expect(len(first) < RESUME_RECORDS, "the first member took everything")
        rest = self.client.take(topic, group, RESUME_RECORDS - len(first))
        expect_equal(sorted(numbers(first + rest)), list(range(RESUME_RECORDS)), "numbers")

    def groups(self):
        client, topic, group = self.client, f"{self.prefix}-resume", f"{self.prefix}-resume"

        def list_groups():
            expect(group in client.groups(), f"{group} is not listed")

        def describe_group():
            wait_until("the group to be empty", lambda: client.describe_group(group) == ("Empty", 0))
            member = client.member(topic, group)
            try:
                wait_until("one member in a stable group", lambda: client.describe_group(group) == ("Stable", 1))
            finally:
                member.leave()

        def delete_group():
            client.delete_group(group)
            expect(group not in client.groups(), f"{group} is still listed")

        self.check("list-groups", list_groups)
        self.check("describe-group", describe_group)
        self.check("delete-group", delete_group)

    def leader_kill(self):
        control = os.environ.get("HELIX_CLIENTS_CONTROL")
        if not control:
            raise CannotDo("no cluster whose nodes may be killed")
        topic = self.topic("kill", 1)
        acknowledged, going, errors = [], threading.Event(), []
        going.set()

        def produce():
            try:
                self.client.produce_while(topic, going.is_set, acknowledged)
            except Exception as error:
                errors.append(error)

        def more(count):
            enough = len(acknowledged) + count
            wait_until(f"{enough} acknowledged records", lambda: errors or len(acknowledged) >= enough)

        producer = threading.Thread(target=produce, daemon=True)
        producer.start()
        more(KILL_AFTER)
        leader = str(self.client.leader(topic, 0))
        subprocess.run([control, "kill", leader], check=True, timeout=DEADLINE_S)
        try:
            more(KILL_AFTER)
        finally:
            going.clear()
            subprocess.run([control, "run", leader], check=True, timeout=DEADLINE_S)
        producer.join(DEADLINE_S)
        expect(not producer.is_alive(), "the producer does not end")
        if errors:
            raise errors[0]
        read = numbers(self.client.read(topic))
        lost = set(acknowledged) - set(read)
        expect(not lost, f"{len(lost)} of {len(acknowledged)} acknowledged records are lost")
        if self.client.idempotent:
            expect_equal(read, sorted(set(read)), "what an idempotent producer wrote")


def run(name, version, make_client):
    command, bootstrap, run_name = sys.argv[1:4]
    print("version", version, flush=True)
    client = make_client(bootstrap)
    checks = Checks(client, name, run_name)
    if command == "check":
        checks.all()
    for writer, codecs in (argument.split("=") for argument in sys.argv[4:]):
        checks.check(f"read-{writer}", lambda: verify_shared(client.read(f"{run_name}-{writer}-shared"), codecs.split(",")))
    # Threads of a client that failed must not keep the process alive.
    os._exit(1 if checks.failed else 0)
