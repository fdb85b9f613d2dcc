package config_test

import (
	"strings"
	"testing"

	"github.com/sidecart/sidecart/internal/config"
)

func TestPlace(t *testing.T) {
	for _, r := range []struct {
		backend config.Backend
		want    string
	}{
		{config.Backend{Redis: &config.Redis{Addresses: []string{"a:1", "b:2"}, Database: 3, MasterName: "shop"}}, "a:1, b:2, database 3, master shop"},
		{config.Backend{Memcached: &config.Memcached{Addresses: []string{"a:1"}}}, "a:1"},
		{config.Backend{DynamoDB: &config.DynamoDB{TableName: "carts", Region: "eu-central-1"}}, "table carts, eu-central-1"},
		{config.Backend{Database: &config.Database{URL: "postgres://user:hunter2@db:5432/carts?password=hunter2"}}, "db:5432/carts"},
		{config.Backend{Database: &config.Database{URL: "mysql://user:hun@ter2@db/carts"}}, "db/carts"},
		{config.Backend{Database: &config.Database{URL: "sqlite:carts.db"}}, "sqlite:carts.db"},
		{config.Backend{Database: &config.Database{URLFile: "/etc/url"}}, "where /etc/url says"},
		{config.Backend{File: &config.File{Directory: "/carts"}}, "/carts"},
		{config.Backend{Memory: &config.Memory{}}, "this process"},
	} {
		got := r.backend.Place()
		if got != r.want || strings.Contains(got, "ter2") {
			t.Errorf("the place is %q, want %q", got, r.want)
		}
	}
}
