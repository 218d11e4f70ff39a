// Package harness holds the checks that every client goes through, for those written in Go; README.md beside it says
// what each asks.
package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime/debug"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	Deadline         = 60 * time.Second
	Window           = 100
	perCodec         = 200
	sharedPartitions = 3
	groupPartitions  = 6
	wave             = 300
	resumeRecords    = 300
	resumeFirst      = 120
	timedRecords     = 100
	timedStep        = time.Second
	killAfter        = 1000
)

var codecs = []string{"none", "gzip", "snappy", "lz4", "zstd"}

type Header struct {
	Key   string
	Value []byte
}

// Record is what is written (Offset unset, Time zero for now) and what is read.
type Record struct {
	Partition  int32
	Offset     int64
	Key, Value []byte
	Headers    []Header
	Time       time.Time
}

// Cannot says why the client has no way to do something.
type Cannot string

func (why Cannot) Error() string { return string(why) }

// Client is what a client's program provides.
type Client interface {
	Idempotent() bool
	CreateTopic(topic string, partitions int32) error
	// PartitionCount is 0 if there is no such topic.
	PartitionCount(topic string) (int32, error)
	Leader(topic string, partition int32) (int32, error)
	AddPartitions(topic string, total int32) error
	DeleteTopic(topic string) error
	DeleteRecords(topic string, partition int32, before int64) error
	TopicConfig(topic, name string) (string, error)
	SetTopicConfig(topic, name, value string) error
	Groups() ([]string, error)
	DescribeGroup(group string) (state string, members int, err error)
	DeleteGroup(group string) error
	// Produce returns when all are acknowledged.
	Produce(topic string, records []Record, codec string) error
	ProduceIdempotent(topic string, records []Record) error
	// ProduceWhile writes numbers 0, 1, ... into partition 0, and tells which are acknowledged.
	ProduceWhile(topic string, going func() bool, acknowledged func(number int)) error
	// Read reads all of a topic, without a group.
	Read(topic string) ([]Record, error)
	// ReadFromTime reads the first record of partition 0 at or after the time, found by seeking.
	ReadFromTime(topic string, from time.Time) (Record, error)
	Member(topic, group string) (*Member, error)
	// Take reads at least count as a group's only member, and commits exactly what it returns.
	Take(topic, group string, count int) ([]Record, error)
}

// Member is a group member that a client's program feeds.
type Member struct {
	lock    sync.Mutex
	records []Record
	owned   []int32
	failure error
	// Leave leaves the group, and returns when it has.
	Leave func() error
}

func (member *Member) Add(records ...Record) {
	member.lock.Lock()
	defer member.lock.Unlock()
	member.records = append(member.records, records...)
}

// Own changes what the member owns: change gets the old partitions and returns the new.
func (member *Member) Own(change func([]int32) []int32) {
	member.lock.Lock()
	defer member.lock.Unlock()
	member.owned = change(member.owned)
}

func (member *Member) Fail(failure error) {
	member.lock.Lock()
	defer member.lock.Unlock()
	member.failure = failure
}

func (member *Member) look() ([]Record, []int32, error) {
	member.lock.Lock()
	defer member.lock.Unlock()
	return slices.Clone(member.records), slices.Clone(member.owned), member.failure
}

// Within gives a context that ends at the deadline.
func Within() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), Deadline)
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func get[T any](value T, err error) T {
	must(err)
	return value
}

func expect(condition bool, format string, arguments ...any) {
	if !condition {
		panic(fmt.Errorf(format, arguments...))
	}
}

func waitUntil(what string, condition func() bool) {
	for until := time.Now().Add(Deadline); !condition(); time.Sleep(50 * time.Millisecond) {
		expect(time.Now().Before(until), "waited %v for %s", Deadline, what)
	}
}

func numbered(count, partitions, first int) (records []Record) {
	for number := first; number < first+count; number++ {
		key, value := fmt.Appendf(nil, "key-%d", number), strconv.AppendInt(nil, int64(number), 10)
		records = append(records, Record{Partition: int32(number % partitions), Key: key, Value: value})
	}
	return records
}

func numbers(records []Record) (all []int) {
	for _, record := range records {
		all = append(all, get(strconv.Atoi(string(record.Value))))
	}
	return all
}

func upTo(first, end int) (all []int) {
	for number := first; number < end; number++ {
		all = append(all, number)
	}
	return all
}

func sharedRecord(codec string, number int) Record {
	text := strconv.Itoa(number)
	headers := []Header{{"codec", []byte(codec)}, {"empty", []byte{}}, {"number", []byte(text)}}
	value := codec + " " + text + " " + strings.Repeat("helix ", 20)
	return Record{Partition: int32(number % sharedPartitions), Key: []byte("key-" + text), Value: []byte(value), Headers: headers}
}

// verifyShared: all that was written with the codecs is there once, unchanged, in its partition's order.
func verifyShared(records []Record, codecs []string) {
	written := map[string]Record{}
	for _, codec := range codecs {
		for number := range perCodec {
			one := sharedRecord(codec, number)
			written[string(one.Value)] = one
		}
	}
	last := map[string]int{}
	for _, record := range records {
		expected, known := written[string(record.Value)]
		delete(written, string(record.Value))
		expect(known && expected.Partition == record.Partition, "%q is there twice or was not written", record.Value)
		expect(bytes.Equal(record.Key, expected.Key), "key %q instead of %q", record.Key, expected.Key)
		same := slices.EqualFunc(record.Headers, expected.Headers, func(a, b Header) bool { return a.Key == b.Key && bytes.Equal(a.Value, b.Value) })
		expect(same, "headers %v instead of %v", record.Headers, expected.Headers)
		words := strings.Split(string(record.Value), " ")
		lane := fmt.Sprint(record.Partition, words[0])
		number := get(strconv.Atoi(words[1])) + 1
		expect(number > last[lane], "%q is out of order", record.Value)
		last[lane] = number
	}
	expect(len(written) == 0, "%d of %d records are missing", len(written), perCodec*len(codecs))
}

type checks struct {
	client Client
	prefix string
	failed bool
}

func (checks *checks) check(name string, body func()) {
	defer func() {
		fault := recover()
		err, _ := fault.(error)
		var cannot Cannot
		switch {
		case fault == nil:
			fmt.Println("ok", name)
		case errors.As(err, &cannot):
			fmt.Printf("n/a %s: %s\n", name, cannot)
		default:
			debug.PrintStack()
			checks.failed = true
			fmt.Printf("FAIL %s: %s\n", name, strings.ReplaceAll(fmt.Sprint(fault), "\n", " "))
		}
	}()
	body()
}

func (checks *checks) awaitPartitions(topic string, count int32) {
	waitUntil(fmt.Sprintf("%s to have %d partitions", topic, count), func() bool { return get(checks.client.PartitionCount(topic)) == count })
}

func (checks *checks) topic(name string, partitions int32) string {
	topic := checks.prefix + "-" + name
	must(checks.client.CreateTopic(topic, partitions))
	checks.awaitPartitions(topic, partitions)
	return topic
}

func (checks *checks) all() {
	checks.topics()
	checks.codecs()
	checks.check("idempotent", checks.idempotent)
	checks.check("seek-time", checks.seekTime)
	checks.check("group-rebalance", checks.groupRebalance)
	checks.check("commit-resume", checks.commitResume)
	checks.groups()
	checks.check("leader-kill", checks.leaderKill)
}

func (checks *checks) topics() {
	client, topic := checks.client, checks.prefix+"-admin"
	checks.check("create-topic", func() { must(client.CreateTopic(topic, 2)) })
	checks.check("describe-topic", func() { checks.awaitPartitions(topic, 2) })
	checks.check("add-partitions", func() {
		must(client.AddPartitions(topic, 4))
		checks.awaitPartitions(topic, 4)
	})
	checks.check("describe-config", func() {
		value := get(client.TopicConfig(topic, "cleanup.policy"))
		expect(value == "delete", "cleanup.policy is %q instead of delete", value)
	})
	checks.check("alter-config", func() {
		must(client.SetTopicConfig(topic, "retention.ms", "3600000"))
		waitUntil("retention.ms to be 3600000", func() bool { return get(client.TopicConfig(topic, "retention.ms")) == "3600000" })
	})
	checks.check("delete-records", func() {
		must(client.Produce(topic, numbered(20, 1, 0), "none"))
		must(client.DeleteRecords(topic, 0, 12))
		left := numbers(get(client.Read(topic)))
		expect(slices.Equal(left, upTo(12, 20)), "%v is left", left)
	})
	checks.check("delete-topic", func() {
		must(client.DeleteTopic(topic))
		checks.awaitPartitions(topic, 0)
	})
}

func (checks *checks) codecs() {
	var shared string
	var done []string
	for _, codec := range codecs {
		checks.check("produce-"+codec, func() {
			if shared == "" {
				shared = checks.topic("shared", sharedPartitions)
			}
			var records []Record
			for number := range perCodec {
				records = append(records, sharedRecord(codec, number))
			}
			must(checks.client.Produce(shared, records, codec))
			done = append(done, codec)
		})
	}
	checks.check("headers", func() { verifyShared(get(checks.client.Read(shared)), done) })
}

func (checks *checks) idempotent() {
	if !checks.client.Idempotent() {
		panic(Cannot("the client has no idempotent producer"))
	}
	topic := checks.topic("idempotent", 1)
	must(checks.client.ProduceIdempotent(topic, numbered(1000, 1, 0)))
	read := numbers(get(checks.client.Read(topic)))
	expect(slices.Equal(read, upTo(0, 1000)), "%d records: %v", len(read), read)
}

func (checks *checks) seekTime() {
	topic := checks.topic("timed", 1)
	start := time.Now().Add(-timedRecords * timedStep).Truncate(time.Millisecond)
	records := numbered(timedRecords, 1, 0)
	for number := range records {
		records[number].Time = start.Add(time.Duration(number) * timedStep)
	}
	must(checks.client.Produce(topic, records, "none"))
	found := get(checks.client.ReadFromTime(topic, start.Add(50*timedStep+time.Millisecond)))
	expect(found.Offset == 51 && string(found.Value) == "51", "%q at %d instead of 51", found.Value, found.Offset)
	expect(found.Time.Equal(start.Add(51*timedStep)), "its timestamp is %v", found.Time)
}

func (checks *checks) groupRebalance() {
	topic, group := checks.topic("group", groupPartitions), checks.prefix+"-group"
	var members, left []*Member
	join := func() { members = append(members, get(checks.client.Member(topic, group))) }
	defer func() {
		for _, member := range members {
			must(member.Leave())
		}
	}()
	settle := func() {
		waitUntil(fmt.Sprintf("%d members to share %d partitions", len(members), groupPartitions), func() bool {
			var owned []int32
			for _, member := range members {
				_, its, failure := member.look()
				must(failure)
				if owned = append(owned, its...); len(its) == 0 {
					return false
				}
			}
			slices.Sort(owned)
			return slices.Equal(owned, []int32{0, 1, 2, 3, 4, 5})
		})
	}
	produce := func(first int) {
		must(checks.client.Produce(topic, numbered(wave, groupPartitions, first), "none"))
		waitUntil(fmt.Sprintf("%d records", first+wave), func() bool {
			seen := map[int]bool{}
			for _, member := range append(slices.Clone(members), left...) {
				records, _, failure := member.look()
				must(failure)
				for _, number := range numbers(records) {
					seen[number] = true
				}
			}
			return len(seen) == first+wave
		})
	}
	join()
	join()
	settle()
	produce(0)
	join()
	settle()
	produce(wave)
	left, members = members[:1], members[1:]
	must(left[0].Leave())
	settle()
	produce(2 * wave)
	for _, member := range members {
		records, _, _ := member.look()
		expect(slices.ContainsFunc(numbers(records), func(number int) bool { return number >= 2*wave }), "a member got nothing")
	}
}

func (checks *checks) commitResume() {
	topic, group := checks.topic("resume", sharedPartitions), checks.prefix+"-resume"
	must(checks.client.Produce(topic, numbered(resumeRecords, sharedPartitions, 0), "none"))
	first := get(checks.client.Take(topic, group, resumeFirst))
	expect(len(first) < resumeRecords, "the first member took everything")
	rest := get(checks.client.Take(topic, group, resumeRecords-len(first)))
	read := numbers(append(first, rest...))
	sort.Ints(read)
	expect(slices.Equal(read, upTo(0, resumeRecords)), "%d and %d records: %v", len(first), len(rest), read)
}

func (checks *checks) groups() {
	client, group := checks.client, checks.prefix+"-resume"
	described := func(state string, count int) func() bool {
		return func() bool {
			is, members, err := client.DescribeGroup(group)
			must(err)
			return is == state && members == count
		}
	}
	checks.check("list-groups", func() { expect(slices.Contains(get(client.Groups()), group), "%s is not listed", group) })
	checks.check("describe-group", func() {
		waitUntil("the group to be empty", described("Empty", 0))
		member := get(client.Member(group, group))
		defer func() { must(member.Leave()) }()
		waitUntil("one member in a stable group", described("Stable", 1))
	})
	checks.check("delete-group", func() {
		must(client.DeleteGroup(group))
		expect(!slices.Contains(get(client.Groups()), group), "%s is still listed", group)
	})
}

func (checks *checks) leaderKill() {
	control := os.Getenv("HELIX_CLIENTS_CONTROL")
	if control == "" {
		panic(Cannot("no cluster whose nodes may be killed"))
	}
	topic := checks.topic("kill", 1)
	var lock sync.Mutex
	acknowledged := map[int]bool{}
	count := func() int {
		lock.Lock()
		defer lock.Unlock()
		return len(acknowledged)
	}
	var going atomic.Bool
	going.Store(true)
	ended := make(chan error, 1)
	go func() {
		ended <- checks.client.ProduceWhile(topic, going.Load, func(number int) {
			lock.Lock()
			defer lock.Unlock()
			acknowledged[number] = true
		})
	}()
	more := func() {
		enough := count() + killAfter
		waitUntil(fmt.Sprintf("%d acknowledged records", enough), func() bool { return len(ended) > 0 || count() >= enough })
	}
	more()
	leader := strconv.Itoa(int(get(checks.client.Leader(topic, 0))))
	order := func(what string) {
		said, err := exec.Command(control, what, leader).CombinedOutput()
		expect(err == nil, "%s %s: %v: %s", what, leader, err, said)
	}
	order("kill")
	func() {
		defer func() {
			going.Store(false)
			order("run")
		}()
		more()
	}()
	select {
	case err := <-ended:
		must(err)
	case <-time.After(Deadline):
		panic(errors.New("the producer does not end"))
	}
	read := numbers(get(checks.client.Read(topic)))
	inOrder := slices.IsSorted(read)
	slices.Sort(read)
	once := slices.Compact(slices.Clone(read))
	for number := range acknowledged {
		_, found := slices.BinarySearch(once, number)
		expect(found, "acknowledged record %d is lost, of %d", number, len(acknowledged))
	}
	expect(!checks.client.Idempotent() || inOrder && len(once) == len(read), "an idempotent producer's records are there twice or out of order")
}

// Run is a client's main function.
func Run(name, version string, make func(bootstrap []string) (Client, error)) {
	command, bootstrap, run := os.Args[1], os.Args[2], os.Args[3]
	fmt.Println("version", version)
	checks := checks{client: get(make(strings.Split(bootstrap, ","))), prefix: run + "-" + name}
	if command == "check" {
		checks.all()
	}
	for _, argument := range os.Args[4:] {
		writer, codecs, _ := strings.Cut(argument, "=")
		checks.check("read-"+writer, func() {
			verifyShared(get(checks.client.Read(run+"-"+writer+"-shared")), strings.Split(codecs, ","))
		})
	}
	if checks.failed {
		os.Exit(1)
	}
}

// Version is that of a module that the program was built with.
func Version(module string) string {
	info, _ := debug.ReadBuildInfo()
	for _, one := range info.Deps {
		if one.Path == module {
			return strings.TrimPrefix(one.Version, "v")
		}
	}
	return "?"
}
