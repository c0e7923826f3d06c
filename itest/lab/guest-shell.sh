# Runs in the guest, at the end of a script that has defined functions: commands from the host, one a line, each answered with what it
# prints and a line "=> CODE". They run in this shell: what one sets the next finds.
exec 3< /dev/ttyS1
echo ready
while IFS= read -r line <&3; do
    eval "$line" < /dev/null 2>&1
    echo "=> $?"
done
