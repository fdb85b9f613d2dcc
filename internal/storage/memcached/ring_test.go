package memcached

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

// TestPlacement: keys are where php-memcached puts them. testdata/placement.php made the table.
func TestPlacement(t *testing.T) {
	raw, err := os.ReadFile("testdata/placement.json")
	if err != nil {
		t.Fatal(err)
	}
	var rows []struct {
		Servers   []string `json:"servers"`
		Placement string   `json:"placement"`
	}
	if err := json.Unmarshal(raw, &rows); err != nil {
		t.Fatal(err)
	}
	if len(rows) < 20 {
		t.Fatalf("only %d rows", len(rows))
	}
	for _, row := range rows {
		r := newRing(row.Servers)
		var got strings.Builder
		for i := range row.Placement {
			got.WriteString(strconv.FormatInt(int64(r.server(fmt.Sprintf("cart.u%d.default", i))), 36))
		}
		if got.String() != row.Placement {
			t.Errorf("%d servers %q:\n%s, php has\n%s", len(row.Servers), row.Servers, got.String(), row.Placement)
		}
	}
}
