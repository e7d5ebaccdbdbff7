// Prints BSON documents from stdin as mongoexport does: by the same function of MongoDB's driver.
// mongoexport.go relaxed|canonical
package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"

	"go.mongodb.org/mongo-driver/bson"
)

func main() {
	data, err := io.ReadAll(os.Stdin)
	for err == nil && len(data) > 0 {
		length := binary.LittleEndian.Uint32(data)
		var line []byte
		line, err = bson.MarshalExtJSON(bson.Raw(data[:length]), os.Args[1] == "canonical", false)
		fmt.Println(string(line))
		data = data[length:]
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
