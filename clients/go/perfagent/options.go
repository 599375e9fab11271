package perfagent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

// Option changes how an agent is called.
type Option func(*settings) error

// WithTLS speaks TLS as it says.
func WithTLS(config *tls.Config) Option {
	return func(s *settings) error {
		s.tls = config.Clone()
		return nil
	}
}

// WithCACert speaks TLS and trusts the certificates of a file (PEM) instead of the system's.
func WithCACert(file string) Option {
	return func(s *settings) error {
		pem, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		config := s.wantTLS()
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("%s has no certificate in PEM", file)
		}
		return nil
	}
}

// WithClientCert speaks TLS and shows a certificate (PEM). Both files are read again for each connection,
// so that the certificate can be renewed.
func WithClientCert(certFile, keyFile string) Option {
	return func(s *settings) error {
		read := func() (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(certFile, keyFile)
			return &pair, err
		}
		if _, err := read(); err != nil {
			return err
		}
		s.wantTLS().GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return read()
		}
		return nil
	}
}

// WithToken sends a token with each call. Without it PERFAGENT_TOKEN is sent, where that is set.
func WithToken(token string) Option {
	return withToken(func() (string, error) { return token, nil })
}

// WithTokenFile sends the token in a file, which is read again for each call, so that it can be renewed.
func WithTokenFile(file string) Option {
	return withToken(func() (string, error) {
		text, err := os.ReadFile(file)
		return string(text), err
	})
}

// WithTokenInTheClear lets the token cross a network without TLS, as it must where a mesh encrypts.
func WithTokenInTheClear() Option {
	return func(s *settings) error {
		s.inTheClear = true
		return nil
	}
}

// WithAttempts says how often a call is made that may be repeated and fails for a reason that passes: 3 times
// without it; 1 is never again. Watches resume all the same.
func WithAttempts(attempts int) Option {
	return func(s *settings) error {
		if attempts < 1 {
			return fmt.Errorf("%d attempts make no call", attempts)
		}
		s.policy.attempts = attempts
		return nil
	}
}

// WithLogger tells of calls that are repeated and watches that are resumed.
func WithLogger(logger *slog.Logger) Option {
	return func(s *settings) error {
		s.policy.log = logger
		return nil
	}
}

// WithDialOptions adds what gRPC itself can do, such as interceptors for tracing. They win over what is set here.
func WithDialOptions(options ...grpc.DialOption) Option {
	return func(s *settings) error {
		s.extra = append(s.extra, options...)
		return nil
	}
}

const (
	defaultAddress = "127.0.0.1:8002"
	// four times the most that an agent answers with
	maxAnswerBytes = 4 << 20
	// between the agent's heartbeats; a connection that does not answer is given up
	keepaliveTime    = 20 * time.Second
	keepaliveTimeout = 10 * time.Second
	connectTimeout   = 5 * time.Second
	// an agent that is started anew is found again within this
	maxConnectDelay = 5 * time.Second
)

type settings struct {
	target     string
	tls        *tls.Config
	token      tokenSource
	inTheClear bool
	policy     policy
	extra      []grpc.DialOption
	// all of it, for gRPC
	dial []grpc.DialOption
}

func settingsOf(address string, options []Option) (*settings, error) {
	s := &settings{policy: defaultPolicy()}
	if token := os.Getenv("PERFAGENT_TOKEN"); token != "" {
		s.token = func() (string, error) { return token, nil }
	}
	for _, option := range options {
		if err := option(s); err != nil {
			return nil, err
		}
	}
	if address == "" {
		address = os.Getenv("PERFAGENT_SERVER")
	}
	if address == "" {
		address = defaultAddress
	}
	host, err := s.locate(address)
	if err != nil {
		return nil, err
	}
	transport := insecure.NewCredentials()
	if s.tls != nil {
		transport = credentials.NewTLS(s.tls)
	}
	s.dial = []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithUserAgent("perfagent-go"),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswerBytes)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: maxConnectDelay},
			MinConnectTimeout: connectTimeout,
		}),
		// the agent's contract says what is repeated, not who can write a TXT record
		grpc.WithDisableServiceConfig(),
	}
	if s.token != nil {
		if s.tls == nil && !s.inTheClear && !isLoopback(host) {
			return nil, fmt.Errorf("the token would reach %s in the clear: give https://, or WithTokenInTheClear where a mesh encrypts", host)
		}
		s.dial = append(s.dial, grpc.WithPerRPCCredentials(s.token))
	}
	s.dial = append(s.dial, s.extra...)
	return s, nil
}

// locate reads an address and sets the target and, as its scheme says, TLS. It answers with the host.
func (s *settings) locate(address string) (string, error) {
	text := address
	if !strings.Contains(text, "://") {
		scheme := "http"
		if s.tls != nil {
			scheme = "https"
		}
		text = scheme + "://" + text
	}
	// url.Parse quotes what it cannot read, and that may hold a password
	parsed, err := url.Parse(text)
	if err != nil || parsed.Host == "" || parsed.User != nil {
		return "", errors.New("the address cannot be read: give HOST:PORT, http://HOST:PORT or https://HOST:PORT")
	}
	switch {
	case parsed.Port() == "":
		return "", fmt.Errorf("%s has no port", address)
	case strings.Trim(parsed.Path, "/") != "" || parsed.RawQuery != "":
		return "", fmt.Errorf("%s has more than host and port", address)
	case parsed.Scheme == "https":
		s.wantTLS()
	case parsed.Scheme != "http":
		return "", fmt.Errorf("%s must begin with http:// or https://", address)
	case s.tls != nil:
		return "", fmt.Errorf("%s is without TLS, and the options want it", address)
	}
	s.target = "dns:///" + parsed.Host
	return parsed.Hostname(), nil
}

func (s *settings) wantTLS() *tls.Config {
	if s.tls == nil {
		s.tls = &tls.Config{}
	}
	return s.tls
}

// tokenSource gives the token. It is a function so that printing it shows no token.
type tokenSource func() (string, error)

func withToken(source tokenSource) Option {
	return func(s *settings) error {
		s.token = source
		_, err := source.GetRequestMetadata(context.Background())
		return err
	}
}

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (t tokenSource) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	text, err := t()
	if err != nil {
		return nil, err
	}
	text = strings.TrimSpace(text)
	if text == "" {
		return nil, errors.New("the token is empty")
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, errors.New("the token has characters that no token has: it is one line, as `perfagent token create` printed it")
	}
	return map[string]string{"authorization": "Bearer " + text}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials. Where there must be TLS is checked before.
func (t tokenSource) RequireTransportSecurity() bool { return false }

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
