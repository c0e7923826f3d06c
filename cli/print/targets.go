package print

import (
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"pstorage/meta/targetpb"
)

// Target is a registered iSCSI target, as it looks from a host.
type Target struct {
	IQN        string    `json:"iqn"`
	Status     string    `json:"status"` // running, stopped, starting, stopping, service failed, remote or unregistered
	State      string    `json:"state"`  // the same without remote: as its own host sees it
	Failure    string    `json:"failure,omitempty"`
	Portals    []Portal  `json:"portals"`
	Registered bool      `json:"registered"`
	Host       string    `json:"host,omitempty"`
	HostName   string    `json:"host_name,omitempty"`
	Account    string    `json:"account,omitempty"`
	Mutual     string    `json:"mutual_account,omitempty"`
	Initiators []string  `json:"initiators,omitempty"`
	Comment    string    `json:"comment,omitempty"`
	LUNs       []LUN     `json:"luns"`
	Sessions   []Session `json:"sessions,omitempty"`
}

// Portal is an address of a target.
type Portal struct {
	Address string `json:"address"`
	Group   uint32 `json:"group"`
}

// LUN is a volume of a target.
type LUN struct {
	Number    uint32 `json:"lun"`
	Size      uint64 `json:"size"`
	Used      uint64 `json:"used"`
	Online    bool   `json:"online"`
	BlockSize uint32 `json:"block_size"`
	ReadOnly  bool   `json:"read_only"`
	Volume    string `json:"volume"`
}

// Session is an initiator that is logged in.
type Session struct {
	Initiator string `json:"initiator"`
	Address   string `json:"address"`
	Since     int64  `json:"since_unix"`
	Account   string `json:"account,omitempty"`
	Portal    string `json:"portal"`
	ISID      string `json:"isid"`
}

// states are the words for what the metadata servers say of a target.
var states = map[targetpb.Target_Status]string{
	targetpb.Target_STOPPED: "stopped", targetpb.Target_STARTING: "starting", targetpb.Target_RUNNING: "running",
	targetpb.Target_FAILED: "service failed", targetpb.Target_UNREGISTERED: "unregistered", targetpb.Target_STOPPING: "stopping",
}

// NewTarget makes the view that a host has of a target.
func NewTarget(t *targetpb.Target, host string) Target {
	v := Target{IQN: t.GetName(), State: states[t.GetStatus()], Failure: t.GetFailure(), Registered: t.GetHost() != "", Host: t.GetHost(), HostName: t.GetHostName(),
		Account: t.GetAccount(), Mutual: t.GetMutual(), Initiators: t.GetInitiators(), Comment: t.GetComment(), Portals: []Portal{}, LUNs: []LUN{}}
	switch {
	case !v.Registered:
		v.State = states[targetpb.Target_UNREGISTERED]
		v.Status = v.State
	case v.Host != host:
		v.Status = "remote"
	default:
		v.Status = v.State
	}
	for _, p := range t.GetPortals() {
		v.Portals = append(v.Portals, Portal{p.GetAddress(), max(p.GetGroup(), 1)})
	}
	online := t.GetStatus() == targetpb.Target_RUNNING
	for _, l := range t.GetLuns() {
		v.LUNs = append(v.LUNs, LUN{l.GetNumber(), l.GetSize(), l.GetUsed(), online, l.GetBlockSize(), l.GetReadOnly(), strings.TrimPrefix(l.GetPath(), "/")})
	}
	for _, s := range t.GetSessions() {
		v.Sessions = append(v.Sessions, Session{s.GetInitiator(), s.GetAddress(), s.GetSinceUnix(), s.GetAccount(), s.GetPortal(), hex.EncodeToString(s.GetIsid())})
	}
	return v
}

// NewTargets makes the views of a listing.
func NewTargets(list []*targetpb.Target, host string) []Target {
	views := make([]Target, 0, len(list))
	for _, t := range list {
		views = append(views, NewTarget(t, host))
	}
	return views
}

// portals are the addresses, with the groups of those that are not in the first.
func (t Target) portals() string {
	texts := make([]string, 0, len(t.Portals))
	for _, p := range t.Portals {
		text := p.Address
		if p.Group != 1 {
			text = fmt.Sprintf("%s (group %d)", p.Address, p.Group)
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, ", ")
}

// TargetTable writes one line per target.
func TargetTable(w io.Writer, targets []Target) error {
	rows := make([][]string, 0, len(targets))
	for _, t := range targets {
		rows = append(rows, []string{t.IQN + " ", t.Status, strconv.Itoa(len(t.LUNs)), orDash(t.Host), t.portals()})
	}
	return Table(w, []string{"IQN ", "STATUS", "LUNs", "HOST", "PORTAL(s)"}, rows)
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

// mebi is the unit of sizes of LUNs.
const mebi = 1 << 20

// TargetText writes one target in detail. Lines about what a target does not have are left out.
func TargetText(w io.Writer, t Target) error {
	var text strings.Builder
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&text, " %-12s %s\n", name+":", value)
		}
	}
	fmt.Fprintf(&text, "Target %s:\n", t.IQN)
	line("Portals", t.portals())
	line("Status", t.Status)
	line("Failure", t.Failure)
	line("Registered", yesNo(t.Registered, "yes", "no"))
	line("Host", orDash(t.Host))
	line("Account", t.Account)
	line("Mutual", t.Mutual)
	line("Initiators", strings.Join(t.Initiators, ", "))
	line("Comment", t.Comment)
	for _, l := range t.LUNs {
		fmt.Fprintf(&text, " LUN: %3d, Size: %8s, Used: %6s, Online: %s\n", l.Number, inMebi(l.Size), inMebi(l.Used), yesNo(l.Online, "Yes", "No"))
	}
	_, err := io.WriteString(w, text.String())
	return err
}

func inMebi(n uint64) string { return strconv.FormatUint((n+mebi-1)/mebi, 10) + "M" }

func yesNo(is bool, yes, no string) string {
	if is {
		return yes
	}
	return no
}

// SessionTable writes one line per session.
func SessionTable(w io.Writer, sessions []Session) error {
	rows := make([][]string, 0, len(sessions))
	for _, s := range sessions {
		since := time.Unix(s.Since, 0).UTC().Format("2006-01-02 15:04:05")
		rows = append(rows, []string{s.Initiator, s.Address, since, orDash(s.Account), s.Portal, s.ISID})
	}
	return Table(w, []string{"INITIATOR", "ADDRESS", "SINCE (UTC)", "ACCOUNT", "PORTAL", "ISID"}, rows)
}

// Connected writes who keeps a target from being stopped.
func Connected(w io.Writer, t Target) error {
	var text strings.Builder
	text.WriteString("initiators still connected\n")
	for _, s := range t.Sessions {
		host, _, err := net.SplitHostPort(s.Address)
		if err != nil {
			host = s.Address
		}
		fmt.Fprintf(&text, " Initiator:   %s (%s)\n", s.Initiator, host)
	}
	fmt.Fprintf(&text, "Unable stop target %s\n", t.IQN)
	_, err := io.WriteString(w, text.String())
	return err
}

// Account is a CHAP account.
type Account struct {
	User    string   `json:"user"`
	Targets []string `json:"targets"`
	Changed int64    `json:"changed_unix,omitempty"`
}

// NewAccounts makes the views of CHAP accounts.
func NewAccounts(list []*targetpb.Account) []Account {
	views := make([]Account, 0, len(list))
	for _, a := range list {
		views = append(views, Account{a.GetUser(), append([]string{}, a.GetTargets()...), a.GetChangedUnix()})
	}
	return views
}
