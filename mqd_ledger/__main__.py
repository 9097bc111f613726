"""`python -m mqd_ledger`, for where the `mqd-ledger` script is not on the path."""

from mqd_ledger.cli.main import main

if __name__ == "__main__":
    main()
