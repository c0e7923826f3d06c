package itest

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"pstorage/itest/ports"
)

func TestMetricsTellOfVolumesAndChunkServers(t *testing.T) {
	port, err := ports.Free()
	if err != nil {
		t.Fatal(err)
	}
	address := "127.0.0.1:" + strconv.Itoa(port)
	u := newUp(t, "--volume", "v=16M", "--metrics", address)
	client := connect(t, u.NBD("v"))
	defer client.Close()
	if err := client.Write(make([]byte, mib), 0); err != nil {
		t.Fatal(err)
	}
	if err := client.Read(make([]byte, mib), 0); err != nil {
		t.Fatal(err)
	}
	page := get(t, "http://"+address+"/metrics")
	for metric, labels := range map[string]string{
		"pstorage_volume_bytes_total":           `volume="`,
		"pstorage_volume_request_seconds_count": `volume="`,
		"pstorage_cs_operations_total":          `cs="1025"`,
		"pstorage_cs_bytes_total":               `cs="1027"`,
		"pstorage_cs_operation_seconds_count":   `cs="1026"`,
		"pstorage_nbd_request_seconds_count":    "",
	} {
		if sum(t, page, metric, labels) <= 0 {
			t.Errorf("%s{%s} does not count", metric, labels)
		}
	}
	if !strings.Contains(get(t, "http://"+address+"/debug/pprof/"), "heap") {
		t.Error("no profiles")
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	reply, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	page, err := io.ReadAll(reply.Body)
	if err != nil || reply.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", url, reply.Status, err)
	}
	return string(page)
}

// sum adds the values of a metric's series that have the label.
func sum(t *testing.T, page, metric, label string) (total float64) {
	t.Helper()
	series := regexp.MustCompile(fmt.Sprintf(`(?m)^%s(\{.*\})? (\S+)$`, metric))
	for _, found := range series.FindAllStringSubmatch(page, -1) {
		if value, err := strconv.ParseFloat(found[2], 64); err == nil && strings.Contains(found[1], label) {
			total += value
		}
	}
	return total
}
