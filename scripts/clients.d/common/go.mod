module helix/clients/common

go 1.24
