// Package yamlfile reads the daemon's configuration files: one YAML document,
// strictly, and with everything that is wrong with it, each mistake with its
// line and the way to mend it.
//
// It knows the form of a file and not what any file says: that is for the
// packages that hold what is in it. Only package daemon and its internal packages
// may import it.
package yamlfile
