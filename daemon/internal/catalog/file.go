package catalog

import (
	"time"

	"openscope/daemon/internal/yamlfile"
)

// verbsFile is verbs.yaml as it is written.
type verbsFile struct {
	SSH   map[string]targetFile `yaml:"ssh"`
	HTTP  map[string]httpFile   `yaml:"http"`
	Verbs map[string]verbFile   `yaml:"verbs"`
}

type targetFile struct {
	Host    string `yaml:"host"`
	Port    int    `yaml:"port"`
	User    string `yaml:"user"`
	KeyFile string `yaml:"key_file"`
	HostKey string `yaml:"host_key"`
	// MaxSessions is how many commands may run there at once.
	MaxSessions int `yaml:"max_sessions"`
}

type httpFile struct {
	URL           string            `yaml:"url"`
	Headers       map[string]string `yaml:"headers"`
	SecretHeaders map[string]string `yaml:"secret_headers"`
	CAFile        string            `yaml:"ca_file"`
}

type requestFile struct {
	Method       string            `yaml:"method"`
	Path         []string          `yaml:"path"`
	Query        map[string]string `yaml:"query"`
	Body         map[string]string `yaml:"body"`
	Form         bool              `yaml:"form"`
	IssuerHeader string            `yaml:"issuer_header"`
}

type sandboxFile struct {
	Read    []string `yaml:"read"`
	Write   []string `yaml:"write"`
	Network string   `yaml:"network"`
}

type verbFile struct {
	Summary   string               `yaml:"summary"`
	Class     string               `yaml:"class"`
	Executor  string               `yaml:"executor"`
	Target    string               `yaml:"target"`
	Argv      []string             `yaml:"argv"`
	Request   *requestFile         `yaml:"request"`
	Sandbox   *sandboxFile         `yaml:"sandbox"`
	Params    map[string]paramFile `yaml:"params"`
	Timeout   time.Duration        `yaml:"timeout"`
	MaxOutput yamlfile.Size        `yaml:"max_output"`
}

type paramFile struct {
	Type      string   `yaml:"type"`
	Summary   string   `yaml:"summary"`
	Enum      []string `yaml:"enum"`
	Pattern   string   `yaml:"pattern"`
	MaxLength int      `yaml:"max_length"`
	Min       *int64   `yaml:"min"`
	Max       *int64   `yaml:"max"`
	Required  bool     `yaml:"required"`
	Default   *string  `yaml:"default"`
	Argv      []string `yaml:"argv"` // of a flag
}
