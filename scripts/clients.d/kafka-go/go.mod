module helix/clients/kafka-go

go 1.24

replace helix/clients/common => ../common

require (
	github.com/segmentio/kafka-go v0.4.51
	helix/clients/common v0.0.0
)

require (
	github.com/klauspost/compress v1.15.9 // indirect
	// kafka-go asks for 4.1.15, which never ends reading the LZ4 frames that aiokafka and rskafka write.
	github.com/pierrec/lz4/v4 v4.1.33 // indirect
)
