# Makes the page's tables of lines "CLIENT<TAB>VERDICT<TAB>CHECK<TAB>WHY": one for the clients that go through the same
# checks, one for what they read of each other, and one for the tools, whose checks are their own.
# usage: awk -v clients='a b' -v tools='c d' -v checks='x y' -f table.awk RESULTS

BEGIN { FS = "\t"; client_count = split(clients, client, " "); tool_count = split(tools, tool, " "); check_count = split(checks, name, " ") }

$2 == "version" { version[$1] = $3; next }
{
    verdict[$1, $3] = $2
    if (!($1 in order)) order[$1] = ""
    order[$1] = order[$1] " " $3
    if ($2 == "n/a") why[++why_count] = $1 "\t" $3 "\t" $4
    if ($2 == "FAIL") fault[++fault_count] = "* " $1 ", " $3 ": " $4
}

function cell(who, what) { return (who, what) in verdict ? verdict[who, what] : "" }

function head(first, row,    column) {
    row = "| " first " |"
    for (column = 1; column <= client_count; column++) if (client[column] in version) row = row " " client[column] " |"
    print row
    gsub(/[^|]+/, "---", row)
    print row
}

function line(first, prefix, what,    column, row) {
    row = "| " first " |"
    for (column = 1; column <= client_count; column++) if (client[column] in version) row = row " " cell(client[column], prefix what) " |"
    print row
}

# A client's reasons, joined where they are the same for several checks.
function reasons(    index_, part, key, keys, key_count, position) {
    for (index_ = 1; index_ <= why_count; index_++) {
        split(why[index_], part, "\t")
        key = part[1] "\t" part[3]
        if (!(key in keys)) { position[++key_count] = key; keys[key] = part[2] } else keys[key] = keys[key] ", " part[2]
    }
    for (index_ = 1; index_ <= key_count; index_++) {
        split(position[index_], part, "\t")
        print "* " part[1] ", " keys[position[index_]] ": " part[2]
    }
}

END {
    head("check")
    row = "| version |"
    for (column = 1; column <= client_count; column++) if (client[column] in version) row = row " " version[client[column]] " |"
    print row
    for (check = 1; check <= check_count; check++) line(name[check], "", name[check])
    print ""
    print "Columns read what rows wrote:"
    print ""
    client[++client_count] = "kcat"
    head("written by")
    for (writer = 1; writer < client_count; writer++) if (client[writer] in version) line(client[writer], "read-", client[writer])
    client_count--
    print ""
    print "| tool | version | ok | FAIL |"
    print "|---|---|---|---|"
    for (one = 1; one <= tool_count; one++) {
        if (!(tool[one] in version)) continue
        good = bad = ""
        count = split(order[tool[one]], done, " ")
        for (check = 1; check <= count; check++) {
            if (done[check] ~ /^read-/) continue
            if (cell(tool[one], done[check]) == "ok") good = good (good ? ", " : "") done[check]
            else bad = bad (bad ? ", " : "") done[check]
        }
        print "| " tool[one] " | " version[tool[one]] " | " good " | " bad " |"
    }
    if (why_count) { print "\nNot applicable:\n"; reasons() }
    if (fault_count) { print "\nFailures:\n"; for (index_ = 1; index_ <= fault_count; index_++) print fault[index_] }
}
