// sarama, at the protocol version that it takes by default.
package main

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/IBM/sarama"

	harness "helix/clients/common"
)

var compressions = map[string]sarama.CompressionCodec{
	"none": sarama.CompressionNone, "gzip": sarama.CompressionGZIP, "snappy": sarama.CompressionSnappy,
	"lz4": sarama.CompressionLZ4, "zstd": sarama.CompressionZSTD,
}

type client struct {
	bootstrap []string
	admin     sarama.ClusterAdmin
}

func connect(bootstrap []string) (harness.Client, error) {
	admin, err := sarama.NewClusterAdmin(bootstrap, sarama.NewConfig())
	return &client{bootstrap, admin}, err
}

func (client *client) Idempotent() bool { return true }

func (client *client) CreateTopic(topic string, partitions int32) error {
	return client.admin.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: partitions, ReplicationFactor: -1}, false)
}

func (client *client) describe(topic string) (*sarama.TopicMetadata, error) {
	found, err := client.admin.DescribeTopics([]string{topic})
	if err != nil {
		return nil, err
	}
	return found[0], nil
}

func (client *client) PartitionCount(topic string) (int32, error) {
	found, err := client.describe(topic)
	if err != nil {
		return 0, err
	}
	if found.Err != sarama.ErrNoError && found.Err != sarama.ErrUnknownTopicOrPartition && found.Err != sarama.ErrLeaderNotAvailable {
		return 0, found.Err
	}
	return int32(len(found.Partitions)), nil
}

func (client *client) Leader(topic string, partition int32) (int32, error) {
	found, err := client.describe(topic)
	if err != nil {
		return 0, err
	}
	for _, one := range found.Partitions {
		if one.ID == partition {
			return one.Leader, nil
		}
	}
	return 0, errors.New("no such partition")
}

func (client *client) AddPartitions(topic string, total int32) error {
	return client.admin.CreatePartitions(topic, total, nil, false)
}

func (client *client) DeleteTopic(topic string) error { return client.admin.DeleteTopic(topic) }

func (client *client) DeleteRecords(topic string, partition int32, before int64) error {
	return client.admin.DeleteRecords(topic, map[int32]int64{partition: before})
}

func (client *client) TopicConfig(topic, name string) (string, error) {
	entries, err := client.admin.DescribeConfig(sarama.ConfigResource{Type: sarama.TopicResource, Name: topic, ConfigNames: []string{name}})
	if err != nil {
		return "", err
	}
	return entries[0].Value, nil
}

func (client *client) SetTopicConfig(topic, name, value string) error {
	entry := sarama.IncrementalAlterConfigsEntry{Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &value}
	return client.admin.IncrementalAlterConfig(sarama.TopicResource, topic, map[string]sarama.IncrementalAlterConfigsEntry{name: entry}, false)
}

func (client *client) Groups() (names []string, err error) {
	groups, err := client.admin.ListConsumerGroups()
	for name := range groups {
		names = append(names, name)
	}
	return names, err
}

func (client *client) DescribeGroup(group string) (string, int, error) {
	found, err := client.admin.DescribeConsumerGroups([]string{group})
	if err != nil {
		return "", 0, err
	}
	if found[0].Err != sarama.ErrNoError {
		return "", 0, found[0].Err
	}
	return found[0].State, len(found[0].Members), nil
}

func (client *client) DeleteGroup(group string) error { return client.admin.DeleteConsumerGroup(group) }

func producerConfig(codec string, idempotent bool) *sarama.Config {
	config := sarama.NewConfig()
	config.Producer.Partitioner = sarama.NewManualPartitioner
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Compression = compressions[codec]
	config.Producer.Return.Successes = true
	// Its three retries of 100 ms each are over before there is another leader.
	config.Producer.Retry.Max = 100
	config.Metadata.Retry.Max = 100
	if config.Producer.Idempotent = idempotent; idempotent {
		config.Net.MaxOpenRequests = 1
	}
	return config
}

func (client *client) produce(topic string, records []harness.Record, config *sarama.Config) error {
	producer, err := sarama.NewSyncProducer(client.bootstrap, config)
	if err != nil {
		return err
	}
	defer producer.Close()
	var messages []*sarama.ProducerMessage
	for _, record := range records {
		message := sarama.ProducerMessage{Topic: topic, Partition: record.Partition, Key: sarama.ByteEncoder(record.Key),
			Value: sarama.ByteEncoder(record.Value), Timestamp: record.Time}
		for _, header := range record.Headers {
			message.Headers = append(message.Headers, sarama.RecordHeader{Key: []byte(header.Key), Value: header.Value})
		}
		messages = append(messages, &message)
	}
	return producer.SendMessages(messages)
}

func (client *client) Produce(topic string, records []harness.Record, codec string) error {
	return client.produce(topic, records, producerConfig(codec, false))
}

func (client *client) ProduceIdempotent(topic string, records []harness.Record) error {
	return client.produce(topic, records, producerConfig("none", true))
}

func (client *client) ProduceWhile(topic string, going func() bool, acknowledged func(int)) error {
	producer, err := sarama.NewAsyncProducer(client.bootstrap, producerConfig("none", true))
	if err != nil {
		return err
	}
	window := make(chan struct{}, harness.Window)
	ended := make(chan error, 1)
	go func() {
		var failure error
		successes, failures := producer.Successes(), producer.Errors()
		for successes != nil || failures != nil {
			select {
			case message, open := <-successes:
				if !open {
					successes = nil
					continue
				}
				acknowledged(message.Metadata.(int))
			case failed, open := <-failures:
				if !open {
					failures = nil
					continue
				}
				failure = failed
			}
			<-window
		}
		ended <- failure
	}()
	for number := 0; going(); number++ {
		window <- struct{}{}
		producer.Input() <- &sarama.ProducerMessage{Topic: topic, Value: sarama.StringEncoder(strconv.Itoa(number)), Metadata: number}
	}
	producer.AsyncClose()
	return <-ended
}

func consumerConfig() *sarama.Config {
	config := sarama.NewConfig()
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.MaxWaitTime = 200 * time.Millisecond
	config.Metadata.RefreshFrequency = 2 * time.Second
	return config
}

func recordOf(message *sarama.ConsumerMessage) harness.Record {
	record := harness.Record{Partition: message.Partition, Offset: message.Offset, Key: message.Key, Value: message.Value, Time: message.Timestamp}
	for _, header := range message.Headers {
		record.Headers = append(record.Headers, harness.Header{Key: string(header.Key), Value: header.Value})
	}
	return record
}

// readPartition reads count records, or all if count is 0, from the given time on, or all if it is sarama.OffsetOldest.
func readPartition(source sarama.Client, topic string, partition int32, from int64, count int) (records []harness.Record, err error) {
	offset, err := source.GetOffset(topic, partition, from)
	if err != nil {
		return nil, err
	}
	end, err := source.GetOffset(topic, partition, sarama.OffsetNewest)
	if err != nil || offset >= end {
		return nil, err
	}
	consumer, err := sarama.NewConsumerFromClient(source)
	if err != nil {
		return nil, err
	}
	messages, err := consumer.ConsumePartition(topic, partition, offset)
	if err != nil {
		return nil, err
	}
	defer messages.Close()
	for deadline := time.After(harness.Deadline); ; {
		select {
		case message := <-messages.Messages():
			records = append(records, recordOf(message))
			if len(records) == count || message.Offset+1 >= end {
				return records, nil
			}
		case <-deadline:
			return nil, errors.New("waited for the end of " + topic)
		}
	}
}

func (client *client) Read(topic string) (records []harness.Record, err error) {
	source, err := sarama.NewClient(client.bootstrap, consumerConfig())
	if err != nil {
		return nil, err
	}
	defer source.Close()
	partitions, err := source.Partitions(topic)
	for _, partition := range partitions {
		its, err := readPartition(source, topic, partition, sarama.OffsetOldest, 0)
		if err != nil {
			return nil, err
		}
		records = append(records, its...)
	}
	return records, err
}

func (client *client) ReadFromTime(topic string, from time.Time) (harness.Record, error) {
	source, err := sarama.NewClient(client.bootstrap, consumerConfig())
	if err != nil {
		return harness.Record{}, err
	}
	defer source.Close()
	records, err := readPartition(source, topic, 0, from.UnixMilli(), 1)
	if err != nil || len(records) == 0 {
		return harness.Record{}, errors.Join(err, errors.New("there is no record"))
	}
	return records[0], nil
}

// handler is called by sarama's group consumer; take gets every record, and marks those to be committed.
type handler struct {
	own  func([]int32)
	take func(record harness.Record, mark func())
}

func (handler *handler) Setup(session sarama.ConsumerGroupSession) error {
	for _, partitions := range session.Claims() {
		handler.own(partitions)
	}
	return nil
}

func (handler *handler) Cleanup(sarama.ConsumerGroupSession) error {
	handler.own(nil)
	return nil
}

func (handler *handler) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for message := range claim.Messages() {
		if session.Context().Err() != nil {
			return nil
		}
		handler.take(recordOf(message), func() { session.MarkMessage(message, "") })
	}
	return nil
}

// consume runs a member until the context ends, and leaves the group.
func (client *client) consume(ctx context.Context, topic, group string, handler *handler) error {
	consumer, err := sarama.NewConsumerGroup(client.bootstrap, group, consumerConfig())
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		if err := consumer.Consume(ctx, []string{topic}, handler); err != nil {
			return errors.Join(err, consumer.Close())
		}
	}
	return consumer.Close()
}

func (client *client) Member(topic, group string) (*harness.Member, error) {
	member, ended := &harness.Member{}, make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	own := func(partitions []int32) { member.Own(func([]int32) []int32 { return partitions }) }
	take := func(record harness.Record, mark func()) {
		member.Add(record)
		mark()
	}
	go func() {
		err := client.consume(ctx, topic, group, &handler{own, take})
		if err != nil {
			member.Fail(err)
		}
		ended <- err
	}()
	member.Leave = func() error {
		cancel()
		return <-ended
	}
	return member, nil
}

// Take: sarama commits what is marked when the session ends.
func (client *client) Take(topic, group string, count int) (records []harness.Record, err error) {
	var lock sync.Mutex
	ctx, cancel := harness.Within()
	defer cancel()
	take := func(record harness.Record, mark func()) {
		lock.Lock()
		defer lock.Unlock()
		if len(records) < count {
			records = append(records, record)
			mark()
		}
		if len(records) == count {
			cancel()
		}
	}
	err = client.consume(ctx, topic, group, &handler{func([]int32) {}, take})
	if err == nil && len(records) < count {
		err = errors.New("waited for records of " + topic)
	}
	return records, err
}

func main() { harness.Run("sarama", harness.Version("github.com/IBM/sarama"), connect) }
