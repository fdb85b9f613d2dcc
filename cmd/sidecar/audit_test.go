package main

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/testserver"
	pb "github.com/sidecart/sidecart/proto/sidecart/v1"
)

// TestAudit: the trail names each call as the API does, whichever front the call came by, and also if changes of many
// clients became one commit. It begins and ends with the configuration.
func TestAudit(t *testing.T) {
	server := testserver.StartPostgres(t)
	url := server.NewDatabase(t)
	file := filepath.Join(t.TempDir(), "sidecar.yaml")
	write := func(audit string) {
		t.Helper()
		text := "apiVersion: sidecar.sidecart.dev/v1alpha1\nkind: SidecarConfig\nallowFlush: true\n" +
			"timeouts: {dial: 5s, read: 5s, write: 5s}\nlocking: {waitTimeout: 20s, leaseDuration: 20s}\n" +
			"backend: {type: Database, database: {url: '" + url + "'}}\n" + audit
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	trail := func(columns string) []string {
		t.Helper()
		out, err := server.Query(testserver.DatabaseOf(url), "SELECT "+columns+" FROM sidecart_audit ORDER BY id")
		if err != nil {
			t.Fatal(err)
		}
		return strings.Fields(strings.ReplaceAll(out, "\t", ":"))
	}

	write("audit: {retention: 24h}\n")
	s := launch(t, "--config="+file)
	s.ready(true)
	send := func(method, path, body string) {
		t.Helper()
		if code, answer, err := request(method, s.http+path, body); err != nil || code != http.StatusOK {
			t.Fatalf("%s %s: %d %s %v", method, path, code, answer, err)
		}
	}
	const guest = "/v1/carts/guest/default"
	send(http.MethodPut, guest+"/items", `{"items":{"a":{"id":"a","quantity":1}}}`)
	send(http.MethodPost, guest+"/items", `{"item":{"id":"a"}}`)
	send(http.MethodPatch, guest+"/items/a", `{"quantityDelta":2}`)
	send(http.MethodPost, guest+":batch", `{"operations":[{"addItem":{"item":{"id":"b"}}},{"putMetadata":{"key":"k","value":1}}]}`)
	send(http.MethodGet, guest, "")
	send(http.MethodPost, guest+":merge", `{"toIdentifier":"ann","strategy":"add_quantities"}`)
	conn, err := grpc.NewClient(s.serving["grpc"].(string), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := pb.NewCartServiceClient(conn).Clear(t.Context(), &pb.ClearRequest{Identifier: "ann", Instance: "default"}); err != nil {
		t.Fatal(err)
	}
	send(http.MethodDelete, "/v1/carts/ann", "")
	send(http.MethodPost, "/v1/carts:flush", "{}")
	want := []string{
		"guest:PutItems:altered:items", "guest:AddItem:altered:items", "guest:UpdateItem:altered:items", "guest:Batch:altered:items", "guest:Batch:altered:metadata.k",
		"ann:Merge:merged:items", "ann:Merge:merged:metadata.k", "guest:Merge:merged:*",
		"ann:Clear:altered:items", "ann:Clear:altered:metadata.k", "ann:ForgetAll:forgotten:*", ":Flush:flushed:*",
	}
	if d := cmp.Diff(want, trail("identifier, call_name, kind, part")); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if who := trail("DISTINCT who, 1 AS id"); len(who) != 1 || who[0] != storage.ProcessName()+":1" {
		t.Errorf("who is %v", who)
	}

	var clients sync.WaitGroup
	const each = 10
	calls := pb.NewCartServiceClient(conn)
	for range each {
		clients.Go(func() {
			if _, err := calls.AddItem(context.WithoutCancel(t.Context()), &pb.AddItemRequest{Identifier: "bob", Instance: "default", Item: []byte(`{"id":"a"}`)}); err != nil {
				t.Error(err)
			}
		})
		clients.Go(func() {
			send(http.MethodPut, "/v1/carts/bob/default/conditions/vat", `{"condition":{"name":"vat","value":"6%"}}`)
		})
		clients.Go(func() { send(http.MethodDelete, "/v1/carts/bob/default/conditions/vat", "") })
	}
	clients.Wait()
	counts := map[string]int{}
	last := ""
	for _, line := range trail("identifier, call_name, to_version")[len(want):] {
		counts[strings.Split(line, ":")[1]]++
		last = line
	}
	if counts["AddItem"] != each || counts["PutCondition"] == 0 || len(counts) > 3 {
		t.Errorf("calls in the trail: %v", counts)
	}
	if _, body := s.get(s.http + "/v1/carts/bob/default"); !strings.Contains(body, `"version":`+last[strings.LastIndexByte(last, ':')+1:]+",") {
		t.Errorf("the trail ends with %s, and the cart is %s", last, body)
	}

	before := len(trail("id"))
	write("")
	s.await("configuration taken over")
	s.mustPut("cat", 1)
	if got := len(trail("id")); got != before {
		t.Errorf("%d lines, want %d: no trail is wanted", got, before)
	}
	write("audit: {retention: 1h}\n")
	s.await("configuration taken over")
	s.mustPut("cat", 2)
	if got := trail("identifier, from_version, to_version"); len(got) != before+1 || got[before] != "cat:1:2" {
		t.Errorf("lines %v, want one more, of cat from 1 to 2", got[before:])
	}
}
