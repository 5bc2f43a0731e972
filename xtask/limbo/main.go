// What Go's crypto/x509 says of each case of C2SP/x509-limbo: the second opinion beside which ours is held
// (crates/portcullis-tls/tests/it/limbo.rs). Run by `cargo xtask limbo`; reads the cases from its argument, writes the
// verdicts to standard output.
package main

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
)

type testcase struct {
	ID             string   `json:"id"`
	Kind           string   `json:"validation_kind"`
	Roots          []string `json:"trusted_certs"`
	Intermediates  []string `json:"untrusted_intermediates"`
	Leaf           string   `json:"peer_certificate"`
	ValidationTime *string  `json:"validation_time"`
	PeerName       *struct {
		Value string `json:"value"`
	} `json:"expected_peer_name"`
}

type report struct {
	Go       string            `json:"go"`
	Verdicts map[string]string `json:"verdicts"`
}

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var limbo struct {
		Testcases []testcase `json:"testcases"`
	}
	if err := json.Unmarshal(text, &limbo); err != nil {
		return err
	}
	out := report{Go: runtime.Version(), Verdicts: map[string]string{}}
	for _, one := range limbo.Testcases {
		out.Verdicts[one.ID] = "accepted"
		if err := verdict(one); err != nil {
			out.Verdicts[one.ID] = "refused: " + strings.Split(err.Error(), "\n")[0]
		}
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(out)
}

// As crypto/tls verifies: the whole chain is parsed first, and one certificate that cannot be read ends it. A root that
// cannot be read is passed over, as AppendCertsFromPEM does.
func verdict(one testcase) error {
	options := x509.VerifyOptions{
		Roots:         x509.NewCertPool(),
		Intermediates: x509.NewCertPool(),
		CurrentTime:   time.Now(),
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if one.Kind == "CLIENT" {
		options.KeyUsages = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	} else if one.PeerName != nil {
		options.DNSName = one.PeerName.Value
	}
	if one.ValidationTime != nil {
		at, err := time.Parse(time.RFC3339, *one.ValidationTime)
		if err != nil {
			return err
		}
		options.CurrentTime = at
	}
	for _, root := range one.Roots {
		options.Roots.AppendCertsFromPEM([]byte(root))
	}
	for _, text := range one.Intermediates {
		certificate, err := parse(text)
		if err != nil {
			return err
		}
		options.Intermediates.AddCert(certificate)
	}
	leaf, err := parse(one.Leaf)
	if err != nil {
		return err
	}
	_, err = leaf.Verify(options)
	return err
}

func parse(text string) (*x509.Certificate, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("no PEM block")
	}
	return x509.ParseCertificate(block.Bytes)
}
