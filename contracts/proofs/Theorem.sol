// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Books} from "../test/model/Books.sol";

/// @title Theorem
/// @notice A statement about {Books} that is proved by induction over its calls, without a bound on
/// their number, arguments or times.
/// @dev A theorem overrides `holds`, what is true of every state, or `note` and `follows`, what is
/// true of every call, or all three. The solver shows the base, that `holds` is true of the books
/// as constructed, and nine steps: from *any* state in which it is true, reachable or not, with any
/// arguments, a call that does not revert leaves it true and does what `follows` says. Induction
/// makes of these that it is always true. "Any token", "any deposit" and "any provider" are
/// constants that nothing constrains.
///
/// The theorems are about Books. The contract is tied to Books by the invariant tests, which keep
/// one as shadow ledger and compare it with the contract after every call.
abstract contract Theorem is Books {
    enum Call {
        RegisterToken,
        Register,
        Deposit,
        Thaw,
        Withdraw,
        Begin,
        Row,
        End,
        Claim
    }

    /// @dev Any deposit, any token and any provider.
    bytes32 internal immutable d;
    address internal immutable t;
    uint256 internal immutable p;

    /// @dev The call under way and what it names, for `follows`; zero where it names nothing. A row
    /// names the open statement's token.
    Call internal call;
    bytes32 internal named;
    address internal namedToken;
    uint256 internal namedProvider;
    uint256 internal amount;

    constructor(uint256 period, bytes32 id, address token, uint256 provider) Books(period) {
        d = id;
        t = token;
        p = provider;
        assert(holds());
    }

    modifier step(Call name, bytes32 id, address token, uint256 provider, uint256 units) {
        require(holds());
        call = name;
        named = id;
        namedToken = token;
        namedProvider = provider;
        amount = units;
        note();
        _;
        assert(holds() && follows());
    }

    function stepRegisterToken(address token, uint256 unit)
        external
        step(Call.RegisterToken, 0, token, 0, 0)
    {
        _registerToken(token, unit);
    }

    function stepRegister(uint256 count) external step(Call.Register, 0, address(0), 0, count) {
        _register(count);
    }

    function stepDeposit(bytes32 id, address token, uint256 units)
        external
        step(Call.Deposit, id, token, 0, units)
    {
        _deposit(id, token, units);
    }

    function stepThaw(bytes32 id, uint256 units)
        external
        step(Call.Thaw, id, tokenOf[id], 0, units)
    {
        _thaw(id, units);
    }

    function stepWithdraw(bytes32 id) external step(Call.Withdraw, id, tokenOf[id], 0, 0) {
        _withdraw(id);
    }

    function stepBegin(bytes32 id, uint256 epoch, uint256 total)
        external
        step(Call.Begin, id, tokenOf[id], 0, total)
    {
        _begin(id, epoch, total);
    }

    function stepRow(uint256 provider, uint256 units)
        external
        step(Call.Row, 0, openToken, provider, units)
    {
        _row(provider, units);
    }

    function stepEnd() external step(Call.End, 0, openToken, 0, 0) {
        _end();
    }

    function stepClaim(address token, uint256 provider)
        external
        step(Call.Claim, 0, token, provider, 0)
    {
        _claim(token, provider);
    }

    /// @dev What is true of every state.
    function holds() internal view virtual returns (bool) {
        return true;
    }

    /// @dev Remembers what `follows` compares with.
    function note() internal virtual {}

    /// @dev What is true of every call, given what was noted before it.
    function follows() internal virtual returns (bool) {
        return true;
    }
}
