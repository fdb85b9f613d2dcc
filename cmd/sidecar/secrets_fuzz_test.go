package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/sidecart/sidecart/internal/config"
	"github.com/sidecart/sidecart/internal/testserver"
)

// leastTold is how many bytes of a secret in a row count as a leak.
const leastTold = 6

// marks stand between the bytes of a fuzzed secret, so that no part of it occurs by chance.
const marks = "QXZJ"

// secretWord is the fuzzed bytes with a mark before each.
func secretWord(raw []byte) string {
	const longest = 48
	var b strings.Builder
	for i, c := range raw[:min(len(raw), longest)] {
		b.WriteByte(marks[i%len(marks)])
		b.WriteByte(c)
	}
	return b.String()
}

// told finds a part of a secret in the output of a sidecar, as it is or as programs quote it.
func told(secret, said string) (part string, found bool) {
	quoted, ascii := strconv.Quote(secret), strconv.QuoteToASCII(secret)
	encoded, _ := json.Marshal(secret) // a string always encodes
	forms := map[string]bool{
		secret: true, strings.NewReplacer("\r", " ", "\n", " ").Replace(secret): true,
		quoted[1 : len(quoted)-1]: true, ascii[1 : len(ascii)-1]: true, string(encoded[1 : len(encoded)-1]): true,
		html.EscapeString(secret): true, url.QueryEscape(secret): true, url.PathEscape(secret): true,
	}
	hex := fmt.Sprintf("%x", secret)
	for i := 0; i+2*leastTold <= len(hex); i += 2 {
		if part := hex[i : i+2*leastTold]; strings.Contains(said, part) {
			return part, true
		}
	}
	for form := range forms {
		for i := 0; i+leastTold <= len(form); i++ {
			part := form[i : i+leastTold]
			if countMarks(part) < 2 {
				continue // of an escape, which says nothing
			}
			if strings.Contains(said, part) {
				return part, true
			}
		}
	}
	return "", false
}

func countMarks(s string) (n int) {
	for _, m := range marks {
		n += strings.Count(s, string(m))
	}
	return n
}

// secretFiles writes files whose content holds word, and is the configuration that names them. It is the table of all
// kinds of secret files.
func secretFiles(dir, parrot, word string, shape byte) (*config.Config, error) {
	c := config.Default()
	c.Listen = config.Listen{GRPC: "127.0.0.1:0", HTTP: "127.0.0.1:0", Admin: "127.0.0.1:0"}
	c.LogFormat, c.LogLevel = config.LogJSON, config.LogDebug
	if shape&0x80 != 0 {
		c.LogFormat = config.LogText
	}
	var failed error
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			failed = err
		}
		return path
	}
	// A word that is to be the name of a file must not lead out of the folder.
	name := strings.NewReplacer("/", "_", "\x00", "_").Replace(word)
	urls := []string{
		word, word + ":" + word + "@db/shop", word + "://db/shop", "postgres://" + word + ":" + word + "@" + word + "/shop?password=" + word,
		"postgres:" + word, "mysql://" + word, "host=db password=" + word, "sqlite:" + dir + "/" + name + "/carts.db", "sqlite:" + dir + "/" + name,
		"sqlite::" + word, "sqlite:file:" + word, "\t" + word + "\n\n", word + "\x00", "%zz://" + word, "sqlite:\x00" + word,
	}
	pem := func(kind, content string) string {
		return "-----BEGIN " + kind + "-----\n" + content + "\n-----END " + kind + "-----\n"
	}
	redis := &config.Redis{Addresses: []string{parrot}}
	const redisShapes = 6
	switch n := int(shape&0x7f) % (redisShapes + len(urls) + 1); n {
	case 0:
		redis.PasswordFile = file("password", word)
	case 1:
		redis.UsernameFile, redis.PasswordFile = file("username", word), file("password", word+"\n")
	case 2:
		redis.Mode, redis.MasterName = config.RedisSentinel, "shop"
		redis.SentinelUsernameFile, redis.SentinelPasswordFile = file("username", word), file("password", word)
		redis.UsernameFile, redis.PasswordFile = redis.SentinelUsernameFile, redis.SentinelPasswordFile
	case 3:
		redis.Mode = config.RedisCluster
		redis.UsernameFile, redis.PasswordFile = file("username", word), file("password", word)
	case 4:
		redis.TLS = config.TLS{CertFile: file("crt", pem("CERTIFICATE", "MAo=")), KeyFile: file("key", word)}
	case 5:
		redis.TLS = config.TLS{CertFile: file("crt", pem(word, "MAo=")), KeyFile: file("key", pem(word+" PRIVATE KEY", word)), CAFile: file("ca", word)}
	case redisShapes:
		c.Backend = config.Backend{Type: config.BackendDynamoDB, DynamoDB: &config.DynamoDB{
			TableName: "carts", Region: "x", Endpoint: "http://" + parrot, AccessKeyIDFile: file("id", word), SecretAccessKeyFile: file("access", word),
		}}
		return c, failed
	default:
		c.Backend = config.Backend{Type: config.BackendDatabase, Database: &config.Database{URLFile: file("url", urls[n-redisShapes-1])}}
		return c, failed
	}
	c.Backend = config.Backend{Type: config.BackendRedis, Redis: redis}
	return c, failed
}

// FuzzSecrets runs a whole sidecar on secret files of every kind with random content. It searches everything that the
// sidecar prints and logs, its status page, metrics, probes and answers for a part of that content. A file is bad from
// the start, or becomes so while the sidecar runs.
func FuzzSecrets(f *testing.F) {
	for shape := range byte(22) {
		f.Add(shape, shape%2 == 0, []byte("a secret: word@of/many?kinds"))
		f.Add(shape|0x80, shape%2 == 1, []byte("\x00\n\r\t\"'<&%zz\xff\u00fc\\"))
	}
	f.Fuzz(func(t *testing.T, shape byte, rotated bool, raw []byte) {
		word := secretWord(raw)
		if len(word) < leastTold {
			return // too short to be told from ordinary text
		}
		dir := t.TempDir()
		c, err := secretFiles(dir, parrotOf(t), word, shape)
		if err != nil {
			t.Fatal(err)
		}
		written, err := config.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "sidecar.yaml")
		begun := written
		if rotated {
			good := *c
			good.Backend = config.Backend{Type: config.BackendMemory}
			if begun, err = config.Marshal(&good); err != nil {
				t.Fatal(err)
			}
		}
		writeFile(t, path, string(begun))
		said := map[string]string{}
		s := begin(t, "--config", path)
		if _, serves := s.awaitOrEnd("serving", "msg=serving"); serves {
			if rotated {
				writeFile(t, path, string(written))
				s.signals <- syscall.SIGHUP
				s.awaitOrEnd("configuration rejected, the last good one goes on", `msg="configuration rejected`, "configuration taken over", `msg="configuration taken over"`)
			}
			http, admin := s.addresses()
			for _, path := range []string{"/statusz", "/readyz", "/metrics", "/livez"} {
				said[path] = answer(t, "GET", admin+path, "", "text/html")
			}
			said["/statusz, JSON"] = answer(t, "GET", admin+"/statusz", "", "application/json")
			said["a read"] = answer(t, "GET", http+"/v1/carts/u1/default", "", "application/json")
			said["a change"] = answer(t, "POST", http+"/v1/carts/u1/default/items", `{"item":{"id":"a","quantity":1}}`, "application/json")
			s.stop()
		}
		s.wait()
		said["the log"] = s.logs.String()
		var validated bytes.Buffer
		runValidate([]string{path}, &validated, &validated)
		for _, secret := range c.SecretFiles() {
			runValidate([]string{secret}, &validated, &validated) // named by mistake
			Run(t.Context(), []string{"--config", secret}, nil, &validated, &validated)
		}
		said["validate"] = validated.String()
		for what, text := range said {
			if part, found := told(word, text); found {
				t.Errorf("%s tells %q of a secret:\n%s", what, part, text)
			}
		}
	})
}

// awaitOrEnd waits until the log has one of texts, or the sidecar has ended.
func (s *sidecarUnderTest) awaitOrEnd(texts ...string) (text string, logged bool) {
	s.t.Helper()
	for {
		s.logs.mu.Lock()
		more, log := s.logs.more, s.logs.text.String()
		s.logs.mu.Unlock()
		for _, text := range texts {
			if strings.Contains(log, text) {
				return text, true
			}
		}
		select {
		case <-more:
		case <-s.exited:
			return "", false
		}
	}
}

// addresses are those of the HTTP front and the admin port in the log, JSON or text.
func (s *sidecarUnderTest) addresses() (front, admin string) {
	s.t.Helper()
	for line := range strings.Lines(s.logs.String()) {
		if !strings.Contains(line, "serving") {
			continue
		}
		var m struct{ HTTP, Admin string }
		if json.Unmarshal([]byte(line), &m) != nil {
			for word := range strings.FieldsSeq(line) {
				if v, ok := strings.CutPrefix(word, "http="); ok {
					m.HTTP = v
				}
				if v, ok := strings.CutPrefix(word, "admin="); ok {
					m.Admin = v
				}
			}
		}
		return "http://" + m.HTTP, "http://" + m.Admin
	}
	s.t.Fatal("no line says where it serves")
	return "", ""
}

// answer is status, headers and body.
func answer(t *testing.T, method, url, body, accept string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", accept)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(resp.Status, resp.Header, "\n", string(raw))
}

var parrot *testserver.Parrot

// parrotOf is a server that repeats its input, one for the whole process.
func parrotOf(t *testing.T) string {
	t.Helper()
	if parrot == nil {
		parrot = testserver.StartParrot(forever{t})
	}
	return parrot.Addr
}

// forever is a test that does not clean up: the next iteration uses the same server.
type forever struct{ *testing.T }

func (forever) Cleanup(func()) {}
