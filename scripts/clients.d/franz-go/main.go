// franz-go, with its admin client kadm.
package main

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	harness "helix/clients/common"
)

var compressions = map[string]kgo.CompressionCodec{
	"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
	"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
}

type franz struct {
	bootstrap []string
	admin     *kadm.Client
}

func connect(bootstrap []string) (harness.Client, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(bootstrap...))
	return &franz{bootstrap, kadm.NewClient(client)}, err
}

func (franz *franz) Idempotent() bool { return true }

func (franz *franz) CreateTopic(topic string, partitions int32) error {
	ctx, cancel := harness.Within()
	defer cancel()
	_, err := franz.admin.CreateTopic(ctx, partitions, -1, nil, topic)
	return err
}

func (franz *franz) describe(topic string) (kadm.TopicDetail, error) {
	ctx, cancel := harness.Within()
	defer cancel()
	topics, err := franz.admin.ListTopics(ctx, topic)
	return topics[topic], err
}

func (franz *franz) PartitionCount(topic string) (int32, error) {
	found, err := franz.describe(topic)
	if err == nil && found.Err != kerr.UnknownTopicOrPartition {
		err = found.Err
	}
	return int32(len(found.Partitions)), err
}

func (franz *franz) Leader(topic string, partition int32) (int32, error) {
	found, err := franz.describe(topic)
	return found.Partitions[partition].Leader, err
}

func (franz *franz) AddPartitions(topic string, total int32) error {
	ctx, cancel := harness.Within()
	defer cancel()
	responses, err := franz.admin.UpdatePartitions(ctx, int(total), topic)
	if err == nil {
		err = responses.Error()
	}
	return err
}

func (franz *franz) DeleteTopic(topic string) error {
	ctx, cancel := harness.Within()
	defer cancel()
	_, err := franz.admin.DeleteTopic(ctx, topic)
	return err
}

func (franz *franz) DeleteRecords(topic string, partition int32, before int64) error {
	ctx, cancel := harness.Within()
	defer cancel()
	offsets := kadm.Offsets{}
	offsets.AddOffset(topic, partition, before, -1)
	responses, err := franz.admin.DeleteRecords(ctx, offsets)
	if err == nil {
		err = responses.Error()
	}
	return err
}

func (franz *franz) TopicConfig(topic, name string) (string, error) {
	ctx, cancel := harness.Within()
	defer cancel()
	resources, err := franz.admin.DescribeTopicConfigs(ctx, topic)
	if err != nil {
		return "", err
	}
	found, err := resources.On(topic, nil)
	for _, config := range found.Configs {
		if config.Key == name {
			return config.MaybeValue(), err
		}
	}
	return "", err
}

func (franz *franz) SetTopicConfig(topic, name, value string) error {
	ctx, cancel := harness.Within()
	defer cancel()
	responses, err := franz.admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: name, Value: &value}}, topic)
	if err == nil {
		_, err = responses.On(topic, func(one *kadm.AlterConfigsResponse) error { return one.Err })
	}
	return err
}

func (franz *franz) Groups() ([]string, error) {
	ctx, cancel := harness.Within()
	defer cancel()
	groups, err := franz.admin.ListGroups(ctx)
	return groups.Groups(), err
}

func (franz *franz) DescribeGroup(group string) (string, int, error) {
	ctx, cancel := harness.Within()
	defer cancel()
	groups, err := franz.admin.DescribeGroups(ctx, group)
	if err == nil {
		err = groups[group].Err
	}
	return groups[group].State, len(groups[group].Members), err
}

func (franz *franz) DeleteGroup(group string) error {
	ctx, cancel := harness.Within()
	defer cancel()
	_, err := franz.admin.DeleteGroup(ctx, group)
	return err
}

func (franz *franz) producer(codec string) (*kgo.Client, error) {
	// Idempotence is the default.
	return kgo.NewClient(kgo.SeedBrokers(franz.bootstrap...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(compressions[codec]), kgo.MaxBufferedRecords(10*harness.Window))
}

func (franz *franz) Produce(topic string, records []harness.Record, codec string) error {
	producer, err := franz.producer(codec)
	if err != nil {
		return err
	}
	defer producer.Close()
	var all []*kgo.Record
	for _, record := range records {
		one := kgo.Record{Topic: topic, Partition: record.Partition, Key: record.Key, Value: record.Value, Timestamp: record.Time}
		for _, header := range record.Headers {
			one.Headers = append(one.Headers, kgo.RecordHeader(header))
		}
		all = append(all, &one)
	}
	ctx, cancel := harness.Within()
	defer cancel()
	return producer.ProduceSync(ctx, all...).FirstErr()
}

func (franz *franz) ProduceIdempotent(topic string, records []harness.Record) error {
	return franz.Produce(topic, records, "none")
}

func (franz *franz) ProduceWhile(topic string, going func() bool, acknowledged func(int)) error {
	producer, err := franz.producer("none")
	if err != nil {
		return err
	}
	defer producer.Close()
	window, failed := make(chan struct{}, harness.Window), make(chan error, harness.Window)
	for number := 0; going() && len(failed) == 0; number++ {
		window <- struct{}{}
		record := &kgo.Record{Topic: topic, Value: []byte(strconv.Itoa(number))}
		producer.Produce(context.Background(), record, func(_ *kgo.Record, err error) {
			if err == nil {
				acknowledged(number)
			} else {
				failed <- err
			}
			<-window
		})
	}
	ctx, cancel := harness.Within()
	defer cancel()
	if err := producer.Flush(ctx); err != nil {
		return err
	}
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

func (franz *franz) consumer(options ...kgo.Opt) (*kgo.Client, error) {
	always := []kgo.Opt{kgo.SeedBrokers(franz.bootstrap...), kgo.MetadataMinAge(100 * time.Millisecond),
		kgo.MetadataMaxAge(2 * time.Second), kgo.FetchMaxWait(200 * time.Millisecond)}
	return kgo.NewClient(append(always, options...)...)
}

func recordsOf(fetches kgo.Fetches) (records []harness.Record) {
	fetches.EachRecord(func(one *kgo.Record) {
		record := harness.Record{Partition: one.Partition, Offset: one.Offset, Key: one.Key, Value: one.Value, Time: one.Timestamp}
		for _, header := range one.Headers {
			record.Headers = append(record.Headers, harness.Header(header))
		}
		records = append(records, record)
	})
	return records
}

func (franz *franz) Read(topic string) ([]harness.Record, error) {
	consumer, err := franz.consumer(kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return nil, err
	}
	defer consumer.Close()
	ctx, cancel := harness.Within()
	defer cancel()
	starts, err := franz.admin.ListStartOffsets(ctx, topic)
	if err != nil {
		return nil, err
	}
	ends, err := franz.admin.ListEndOffsets(ctx, topic)
	if err != nil {
		return nil, err
	}
	unread := map[int32]int64{}
	ends.Each(func(end kadm.ListedOffset) {
		if start, _ := starts.Lookup(topic, end.Partition); end.Offset > start.Offset {
			unread[end.Partition] = end.Offset
		}
	})
	var records []harness.Record
	for len(unread) > 0 {
		fetches := consumer.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return nil, err
		}
		for _, record := range recordsOf(fetches) {
			records = append(records, record)
			if record.Offset+1 >= unread[record.Partition] {
				delete(unread, record.Partition)
			}
		}
	}
	return records, nil
}

func (franz *franz) ReadFromTime(topic string, from time.Time) (harness.Record, error) {
	consumer, err := franz.consumer(kgo.ConsumeTopics(topic), kgo.ConsumeStartOffset(kgo.NewOffset().AfterMilli(from.UnixMilli())))
	if err != nil {
		return harness.Record{}, err
	}
	defer consumer.Close()
	ctx, cancel := harness.Within()
	defer cancel()
	fetches := consumer.PollRecords(ctx, 1)
	if err := fetches.Err(); err != nil {
		return harness.Record{}, err
	}
	return recordsOf(fetches)[0], nil
}

func (franz *franz) Member(topic, group string) (*harness.Member, error) {
	member := &harness.Member{}
	gone := func(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
		member.Own(func(owned []int32) []int32 {
			return slices.DeleteFunc(owned, func(one int32) bool { return slices.Contains(lost[topic], one) })
		})
	}
	consumer, err := franz.consumer(kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.OnPartitionsRevoked(gone), kgo.OnPartitionsLost(gone),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, added map[string][]int32) {
			member.Own(func(owned []int32) []int32 { return append(owned, added[topic]...) })
		}))
	if err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			fetches := consumer.PollFetches(context.Background())
			if fetches.IsClientClosed() {
				return
			}
			if err := fetches.Err(); err != nil {
				member.Fail(err)
			}
			member.Add(recordsOf(fetches)...)
		}
	}()
	member.Leave = func() error {
		consumer.Close()
		<-ended
		return nil
	}
	return member, nil
}

func (franz *franz) Take(topic, group string, count int) (records []harness.Record, err error) {
	consumer, err := franz.consumer(kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return nil, err
	}
	defer consumer.Close()
	ctx, cancel := harness.Within()
	defer cancel()
	for len(records) < count {
		fetches := consumer.PollRecords(ctx, 20)
		if err := fetches.Err(); err != nil {
			return nil, err
		}
		records = append(records, recordsOf(fetches)...)
	}
	return records, consumer.CommitUncommittedOffsets(ctx)
}

func main() { harness.Run("franz-go", harness.Version("github.com/twmb/franz-go"), connect) }
