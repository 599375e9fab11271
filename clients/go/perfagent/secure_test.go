package perfagent_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/grpclog"

	"github.com/perfagent/perfagent/clients/go/internal/testagent"
	"github.com/perfagent/perfagent/clients/go/perfagent"
	pb "github.com/perfagent/perfagent/clients/go/perfagent/v1"
)

func TestTLSWithTokens(t *testing.T) {
	pki := newPKI(t)
	credentials := filepath.Join(t.TempDir(), "credentials")
	viewer := newToken(t, credentials, "prometheus", "viewer")
	operator := newToken(t, credentials, "ann", "operator")
	agent := testagent.Start(t, "--tls-cert", pki.file("server.pem"), "--tls-key", pki.file("server.key"), "--credentials-file", credentials)
	engine := testagent.StartEngine(t)
	ca := perfagent.WithCACert(pki.file("ca.pem"))

	_, err := perfagent.Dial(t.Context(), agent.Address, ca)
	if !errors.Is(err, perfagent.ErrUnauthenticated) {
		t.Errorf("let in without a token: %v", err)
	}
	contains(t, typed(t, err).Hint, "PERFAGENT_TOKEN")
	_, err = perfagent.Dial(t.Context(), agent.Address, ca, perfagent.WithToken(viewer+"x"))
	if !errors.Is(err, perfagent.ErrUnauthenticated) {
		t.Errorf("let in with a wrong token: %v", err)
	}

	t.Setenv("PERFAGENT_TOKEN", viewer)
	looking := dial(t, agent, ca)
	for _, err := range looking.ListInstances(t.Context(), &pb.ListInstancesRequest{}) {
		check(t, err)
	}
	_, err = looking.RegisterInstance(t.Context(), &pb.RegisterInstanceRequest{InstanceId: "x", MetricsUrl: engine.URL})
	if !errors.Is(err, perfagent.ErrRoleNotAllowed) {
		t.Errorf("a viewer registered: %v", err)
	}

	// a file is read again for each call
	file := filepath.Join(t.TempDir(), "token")
	check(t, os.WriteFile(file, []byte(viewer+"\n"), 0o600))
	working := dial(t, agent, ca, perfagent.WithTokenFile(file))
	check(t, os.WriteFile(file, []byte(operator+"\n"), 0o600))
	register(t, working, "x", engine, nil)
	watched := false
	for message, err := range working.WatchMetrics(t.Context(), &pb.WatchMetricsRequest{}) {
		check(t, err)
		if watched = message.GetMeasurement() != nil; watched {
			break
		}
	}
	if !watched {
		t.Error("nothing to watch")
	}

	shown := fmt.Sprintf("%+v %#v", working, looking) + logged.String()
	for _, token := range []string{viewer, operator} {
		if strings.Contains(shown, token) {
			t.Error("a token is shown")
		}
	}
	if !strings.Contains(logged.String(), agent.Address) {
		t.Error("gRPC's log was not captured, so this proves nothing")
	}
}

func TestClientCertificates(t *testing.T) {
	pki := newPKI(t)
	agent := testagent.Start(t, "--tls-cert", pki.file("server.pem"), "--tls-key", pki.file("server.key"), "--tls-client-ca", pki.file("ca.pem"))
	ca := perfagent.WithCACert(pki.file("ca.pem"))
	_, err := perfagent.Dial(t.Context(), agent.Address, ca)
	contains(t, typed(t, err).Error(), "WithClientCert")
	client := dial(t, agent, ca, perfagent.WithClientCert(pki.file("client.pem"), pki.file("client.key")))
	must(client.GetAgentInfo(t.Context(), &pb.GetAgentInfoRequest{}))

	roots := x509.NewCertPool()
	text, err := os.ReadFile(pki.file("ca.pem"))
	check(t, err)
	roots.AppendCertsFromPEM(text)
	pair, err := tls.LoadX509KeyPair(pki.file("client.pem"), pki.file("client.key"))
	check(t, err)
	dial(t, agent, perfagent.WithTLS(&tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}))
}

func TestDialSaysWhatIsWrongWithTLS(t *testing.T) {
	pki, other := newPKI(t), newPKI(t)
	secure := testagent.Start(t, "--tls-cert", pki.file("server.pem"), "--tls-key", pki.file("server.key"))
	plain := testagent.Start(t)
	_, port, _ := net.SplitHostPort(secure.Address)
	for name, test := range map[string]struct {
		address, hint string
		options       []perfagent.Option
	}{
		"plain to TLS": {"http://" + secure.Address, "https://", nil},
		"TLS to plain": {"https://" + plain.Address, "http://", nil},
		"another CA":   {secure.Address, "WithCACert", []perfagent.Option{perfagent.WithCACert(other.file("ca.pem"))}},
		"system's CAs": {"https://" + secure.Address, "WithCACert", nil},
		"another name": {"127.0.0.1:" + port, "name of its certificate", []perfagent.Option{perfagent.WithTLS(pki.named("elsewhere"))}},
	} {
		_, err := perfagent.Dial(t.Context(), test.address, test.options...)
		if err == nil {
			t.Errorf("%s: connected", name)
			continue
		}
		if failed := typed(t, err); !strings.Contains(failed.Hint, test.hint) {
			t.Errorf("%s: no hint with %q: %v", name, test.hint, err)
		}
	}
}

// pki is a CA, and a server and a client that it has signed.
type pki struct {
	directory string
	roots     *x509.CertPool
}

func (p pki) file(name string) string { return filepath.Join(p.directory, name) }

func (p pki) named(server string) *tls.Config {
	return &tls.Config{RootCAs: p.roots, ServerName: server}
}

func newPKI(t *testing.T) pki {
	t.Helper()
	p := pki{t.TempDir(), x509.NewCertPool()}
	ca := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "test CA"},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	caKey := p.sign(t, "ca", ca, ca, nil)
	p.roots.AddCert(ca)
	server := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "agent"},
		DNSNames:    []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	p.sign(t, "server", server, ca, caKey)
	client := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "client"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	p.sign(t, "client", client, ca, caKey)
	return p
}

// sign writes NAME.pem and NAME.key; without a parent's key the certificate signs itself.
func (p pki) sign(t *testing.T, name string, certificate, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	if parentKey == nil {
		parentKey = key
	}
	certificate.SerialNumber = big.NewInt(time.Now().UnixNano())
	certificate.NotBefore = time.Now().Add(-time.Hour)
	certificate.NotAfter = time.Now().Add(time.Hour)
	signed, err := x509.CreateCertificate(rand.Reader, certificate, parent, &key.PublicKey, parentKey)
	check(t, err)
	parsed, err := x509.ParseCertificate(signed)
	check(t, err)
	*certificate = *parsed
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	check(t, err)
	write := func(file, kind string, der []byte) {
		check(t, os.WriteFile(p.file(file), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	}
	write(name+".pem", "CERTIFICATE", signed)
	write(name+".key", "PRIVATE KEY", secret)
	return key
}

func newToken(t *testing.T, credentials, name, role string) string {
	t.Helper()
	output := testagent.Run(t, "token", "create", "--name", name, "--role", role, "--file", credentials)
	token := strings.TrimSpace(output)
	if !strings.HasPrefix(token, "pa_") {
		t.Fatal("no token was printed")
	}
	return token
}

// logged is all that gRPC itself logs. It must be set before gRPC does anything.
var logged = func() *lockedBuffer {
	all := &lockedBuffer{}
	grpclog.SetLoggerV2(grpclog.NewLoggerV2WithVerbosity(all, all, all, 99))
	return all
}()

type lockedBuffer struct {
	mutex  sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(text []byte) (int, error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.buffer.Write(text)
}

func (b *lockedBuffer) String() string {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.buffer.String()
}
